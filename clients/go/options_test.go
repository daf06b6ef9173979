package mlxgrpc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	mlxgrpc "github.com/mlx-grpc/mlx-grpc/clients/go"
)

// selfSigned gives a certificate for 127.0.0.1 that is its own root, and its key, both PEM.
func selfSigned(t *testing.T) (chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// With mutual TLS each side trusts the other's root; without the client's certificate the call fails.
func TestMutualTLS(t *testing.T) {
	chain, key := selfSigned(t)
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(chain)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	target := answering(0, codes.OK).serve(t, grpc.Creds(credentials.NewTLS(config)))

	with := mlxgrpc.ClientOptions{RootCertificates: chain, PrivateKey: key, CertificateChain: chain, NoRetry: true}
	if _, err := open(t, target, with).Generate(t.Context(), mlxgrpc.Prompt("x")); err != nil {
		t.Error(err)
	}
	without := mlxgrpc.ClientOptions{RootCertificates: chain, NoRetry: true}
	if _, err := open(t, target, without).Generate(t.Context(), mlxgrpc.Prompt("x")); err == nil {
		t.Error("a client without a certificate was let in")
	}
}

// Options that contradict each other are refused when the client is made.
func TestBadOptions(t *testing.T) {
	chain, key := selfSigned(t)
	for name, options := range map[string]mlxgrpc.ClientOptions{
		"key alone":     {PrivateKey: key},
		"chain alone":   {CertificateChain: chain},
		"no PEM":        {RootCertificates: []byte("x")},
		"no key":        {PrivateKey: []byte("x"), CertificateChain: chain},
		"token of more": {Token: "a\nb"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := mlxgrpc.NewClient("", options); err == nil {
				t.Error("taken")
			}
		})
	}
}
