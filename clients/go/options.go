package mlxgrpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Version is this module's.
const Version = "0.1.0"

// DefaultTarget is where a server listens that was told nothing else.
const DefaultTarget = "localhost:50051"

const (
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	maxResponseBytes = 64 << 20
	// A request larger than this is committed when it is sent, and never retried; gRPC's own 256 KiB is less than a prompt.
	retryBufferBytes = 4 << 20
	retryPolicy      = `{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":4,"initialBackoff":"0.2s","maxBackoff":"5s",` +
		`"backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE","RESOURCE_EXHAUSTED"]}}],` +
		`"retryThrottling":{"maxTokens":100,"tokenRatio":0.5}}`
)

// ClientOptions say how to reach a server. The zero value is a server without TLS that wants no token.
type ClientOptions struct {
	// TLS encrypts, with the system's roots unless RootCertificates are given.
	TLS bool
	// RootCertificates (PEM) are the ones to trust. Implies TLS.
	RootCertificates []byte
	// PrivateKey and CertificateChain (PEM) are the client's own, for mutual TLS: both or neither. They imply TLS.
	PrivateKey, CertificateChain []byte
	// Token is sent with every call, as "authorization: Bearer ...". Without TLS it is readable on the way.
	Token string
	// Timeout is the deadline of every call whose context has none. Default: none.
	Timeout time.Duration
	// NoRetry turns off the retries of calls that were refused before their first message.
	NoRetry bool
	// DialOptions are gRPC's own; they come last and win.
	DialOptions []grpc.DialOption
}

func (o ClientOptions) secure() bool {
	return o.TLS || o.RootCertificates != nil || o.PrivateKey != nil
}

// check refuses options that contradict each other.
func (o ClientOptions) check() error {
	if (o.PrivateKey == nil) != (o.CertificateChain == nil) {
		return errors.New("mlxgrpc: PrivateKey and CertificateChain go together: give both or neither")
	}
	for _, character := range []byte(o.Token) {
		if character < ' ' || character > '~' {
			return errors.New("mlxgrpc: Token: only printable ASCII characters can be sent")
		}
	}
	return nil
}

func (o ClientOptions) transportCredentials() (credentials.TransportCredentials, error) {
	if !o.secure() {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.RootCertificates != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(o.RootCertificates) {
			return nil, errors.New("mlxgrpc: RootCertificates hold no certificate in PEM")
		}
	}
	if o.PrivateKey != nil {
		own, err := tls.X509KeyPair(o.CertificateChain, o.PrivateKey)
		if err != nil {
			return nil, errors.New("mlxgrpc: PrivateKey and CertificateChain: " + err.Error())
		}
		config.Certificates = []tls.Certificate{own}
	}
	return credentials.NewTLS(config), nil
}

func (o ClientOptions) dialOptions() ([]grpc.DialOption, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	transport, err := o.transportCredentials()
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("mlx-grpc-go/" + Version),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxResponseBytes),
			grpc.MaxRetryRPCBufferSize(retryBufferBytes),
		),
		// What DNS says of retries is not asked for: it would take the place of ours.
		grpc.WithDisableServiceConfig(),
		grpc.WithChainUnaryInterceptor(o.unary),
	}
	if o.NoRetry {
		options = append(options, grpc.WithDisableRetry())
	} else {
		options = append(options, grpc.WithDefaultServiceConfig(retryPolicy))
	}
	if o.Token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(o.Token)))
	}
	return append(options, o.DialOptions...), nil
}

// bearer is a token that goes with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }
