package io.github.mlxgrpc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;

import java.io.ByteArrayOutputStream;
import java.security.KeyFactory;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.interfaces.RSAPrivateCrtKey;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class PrivateKeysTest {
    /** A PKCS #1 key of any usual size is the same key in its new envelope. */
    @ParameterizedTest
    @ValueSource(ints = {1024, 2048})
    void rsaKeysAreWrapped(int bits) throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
        generator.initialize(bits);
        PrivateKey key = generator.generateKeyPair().getPrivate();
        // What PKCS #8 wraps is at its end: the whole PKCS #1 key.
        byte[] pkcs8 = key.getEncoded();
        byte[] pkcs1 = Arrays.copyOfRange(pkcs8, 26, pkcs8.length);
        RSAPrivateCrtKey found = (RSAPrivateCrtKey) parse("RSA", PrivateKeys.toPkcs8(pem("RSA PRIVATE KEY", pkcs1)));
        assertEquals(((RSAPrivateCrtKey) key).getPrivateExponent(), found.getPrivateExponent());
    }

    /** A SEC 1 key keeps its curve. */
    @Test
    void ecKeysAreWrapped() throws Exception {
        byte[] secret = new byte[32];
        Arrays.fill(secret, (byte) 7);
        ByteArrayOutputStream sec1 = new ByteArrayOutputStream();
        sec1.writeBytes(new byte[] {0x30, 49, 2, 1, 1, 4, 32});
        sec1.writeBytes(secret);
        sec1.writeBytes(new byte[] {(byte) 0xa0, 10, 6, 8, 0x2a, (byte) 0x86, 0x48, (byte) 0xce, 0x3d, 3, 1, 7});
        assertEquals("EC", parse("EC", PrivateKeys.toPkcs8(pem("EC PRIVATE KEY", sec1.toByteArray()))).getAlgorithm());
    }

    /** PKCS #8 is what Java wants. */
    @Test
    void pkcs8StaysAsItIs() {
        String key = pem("PRIVATE KEY", new byte[] {1, 2, 3});
        assertSame(key, PrivateKeys.toPkcs8(key));
    }

    private static String pem(String label, byte[] der) {
        String text = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(der);
        return "-----BEGIN " + label + "-----\n" + text + "\n-----END " + label + "-----\n";
    }

    private static PrivateKey parse(String algorithm, String pem) throws Exception {
        byte[] der = Base64.getMimeDecoder().decode(pem.replaceAll("-----.*-----", ""));
        return KeyFactory.getInstance(algorithm).generatePrivate(new PKCS8EncodedKeySpec(der));
    }
}
