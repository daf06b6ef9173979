package io.github.mlxgrpc;

import java.time.Duration;
import java.util.Optional;

/**
 * How a {@link Client} reaches its server. Immutable: each method gives a changed copy.
 *
 * <pre>{@code
 * ClientOptions.DEFAULTS.token("…").timeout(Duration.ofSeconds(30))
 * }</pre>
 *
 * @param tls whether the connection is encrypted; implied by any certificate
 * @param rootCertificates PEM of whom to trust; empty: whom the Java runtime trusts
 * @param privateKey PEM for mutual TLS; goes with {@code certificateChain}
 * @param certificateChain PEM for mutual TLS; goes with {@code privateKey}
 * @param token sent with every call as {@code authorization: Bearer …}
 * @param timeout the deadline of every call, counted from its start; empty: none
 * @param retry whether calls are tried again as {@link Client} says
 */
public record ClientOptions(
        boolean tls,
        Optional<String> rootCertificates,
        Optional<String> privateKey,
        Optional<String> certificateChain,
        Optional<String> token,
        Optional<Duration> timeout,
        boolean retry) {

    /** No TLS, no token, no deadline, retries on. */
    public static final ClientOptions DEFAULTS = new ClientOptions(
            false,
            Optional.empty(),
            Optional.empty(),
            Optional.empty(),
            Optional.empty(),
            Optional.empty(),
            true);

    /** Refuses settings that contradict each other with an IllegalArgumentException. */
    public ClientOptions {
        if (privateKey.isPresent() != certificateChain.isPresent()) {
            throw new IllegalArgumentException("privateKey and certificateChain go together: give both or neither");
        }
        if (token.isPresent() && !token.get().chars().allMatch(c -> c >= ' ' && c <= '~')) {
            throw new IllegalArgumentException("token: only printable ASCII characters can be sent");
        }
        tls = tls || rootCertificates.isPresent() || privateKey.isPresent();
    }

    /** Encrypts the connection, trusting whom the Java runtime trusts. */
    public ClientOptions withTls() {
        return new ClientOptions(true, rootCertificates, privateKey, certificateChain, token, timeout, retry);
    }

    /** Encrypts the connection, trusting these certificates (PEM). */
    public ClientOptions rootCertificates(String pem) {
        return new ClientOptions(true, Optional.of(pem), privateKey, certificateChain, token, timeout, retry);
    }

    /** Proves to the server who we are, with a private key (PEM) and its certificate chain (PEM). */
    public ClientOptions identity(String privateKeyPem, String certificateChainPem) {
        return new ClientOptions(
                true, rootCertificates, Optional.of(privateKeyPem), Optional.of(certificateChainPem), token, timeout, retry);
    }

    /** Sends this token with every call. Without TLS it is readable on the way. */
    public ClientOptions token(String token) {
        return new ClientOptions(
                tls, rootCertificates, privateKey, certificateChain, Optional.of(token), timeout, retry);
    }

    /** Gives every call this deadline; {@link Client#withTimeout} gives one call another. */
    public ClientOptions timeout(Duration timeout) {
        return new ClientOptions(
                tls, rootCertificates, privateKey, certificateChain, token, Optional.of(timeout), retry);
    }

    /** Fails at the first refusal instead of trying again. */
    public ClientOptions withoutRetries() {
        return new ClientOptions(tls, rootCertificates, privateKey, certificateChain, token, timeout, false);
    }
}
