package io.github.mlxgrpc;

import java.io.ByteArrayOutputStream;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Private keys as Java reads them.
 *
 * <p>Java knows PKCS #8 alone ({@code BEGIN PRIVATE KEY}). Keys as openssl has long written them, PKCS #1 for RSA (RFC 8017)
 * and SEC 1 for elliptic curves (RFC 5915), are put into that envelope (RFC 5208) here.
 */
final class PrivateKeys {
    private static final Pattern OLDER =
            Pattern.compile("-----BEGIN (RSA|EC) PRIVATE KEY-----([A-Za-z0-9+/=\\s]+)-----END \\1 PRIVATE KEY-----");
    private static final byte[] VERSION_0 = HexFormat.of().parseHex("020100");
    private static final byte[] RSA = HexFormat.of().parseHex("06092a864886f70d0101010500"); // rsaEncryption, NULL
    private static final byte[] EC = HexFormat.of().parseHex("06072a8648ce3d0201"); // id-ecPublicKey
    private static final int SEQUENCE = 0x30;
    private static final int OCTET_STRING = 0x04;
    private static final int PARAMETERS = 0xa0;

    private PrivateKeys() {}

    /** The same key, as PKCS #8; a text of any other kind is given back as it is. */
    static String toPkcs8(String pem) {
        Matcher found = OLDER.matcher(pem);
        if (!found.find()) {
            return pem;
        }
        byte[] key = Base64.getMimeDecoder().decode(found.group(2));
        byte[] algorithm = found.group(1).equals("RSA") ? RSA : join(EC, curve(key));
        byte[] whole = der(SEQUENCE, join(VERSION_0, der(SEQUENCE, algorithm), der(OCTET_STRING, key)));
        String text = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(whole);
        return "-----BEGIN PRIVATE KEY-----\n" + text + "\n-----END PRIVATE KEY-----\n";
    }

    /** ECPrivateKey is version, key, [0] curve, [1] public key: what stands in [0]. */
    private static byte[] curve(byte[] key) {
        int at = contents(key, 0);
        while (at < key.length) {
            int start = contents(key, at);
            int end = start + length(key, at);
            if ((key[at] & 0xff) == PARAMETERS) {
                return Arrays.copyOfRange(key, start, end);
            }
            at = end;
        }
        throw new IllegalArgumentException("privateKey: an EC key that does not name its curve");
    }

    private static int contents(byte[] der, int at) {
        return at + 2 + ((der[at + 1] & 0x80) == 0 ? 0 : der[at + 1] & 0x7f);
    }

    private static int length(byte[] der, int at) {
        int length = der[at + 1];
        if (length < 0) {
            length = 0;
            for (int i = at + 2; i < contents(der, at); i++) {
                length = length << 8 | der[i] & 0xff;
            }
        }
        return length;
    }

    private static byte[] der(int tag, byte[] contents) {
        int length = contents.length;
        byte[] size = length < 0x80
                ? new byte[] {(byte) length}
                : length < 0x100
                        ? new byte[] {(byte) 0x81, (byte) length}
                        : new byte[] {(byte) 0x82, (byte) (length >> 8), (byte) length};
        return join(new byte[] {(byte) tag}, size, contents);
    }

    private static byte[] join(byte[]... parts) {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        for (byte[] part : parts) {
            all.writeBytes(part);
        }
        return all.toByteArray();
    }
}
