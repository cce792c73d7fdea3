package etcdserver

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
	"os"
	"path/filepath"
	"time"
)

func (s *Server) serverFile(ext string) string { return filepath.Join(s.dir, "server."+ext) }

// makeCertificates makes a CA and, signed by it, the server's certificate and
// the client's.
func (s *Server) makeCertificates() {
	s.tb.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := s.newKey()
	s.CAFile = filepath.Join(s.dir, "ca.crt")
	s.sign(ca, ca, caKey, caKey, s.CAFile)

	leaf := *ca
	leaf.IsCA, leaf.KeyUsage = false, x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leaf.SerialNumber, leaf.Subject.CommonName = big.NewInt(2), "test server"
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	if host, _, err := net.SplitHostPort(s.o.Listen); err == nil {
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(host))
	}
	key := s.newKey()
	s.sign(&leaf, ca, key, caKey, s.serverFile("crt"))
	s.writeKey(key, s.serverFile("key"))

	// No common name: etcd would take it for a user's.
	leaf.SerialNumber, leaf.Subject = big.NewInt(3), pkix.Name{Organization: []string{"test client"}}
	key = s.newKey()
	s.CertFile, s.KeyFile = filepath.Join(s.dir, "client.crt"), filepath.Join(s.dir, "client.key")
	s.sign(&leaf, ca, key, caKey, s.CertFile)
	s.writeKey(key, s.KeyFile)

	pool := x509.NewCertPool()
	caPEM, err := os.ReadFile(s.CAFile)
	s.must(err)
	pool.AppendCertsFromPEM(caPEM)
	cert, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	s.must(err)
	s.tls = &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}
}

func (s *Server) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	return key
}

func (s *Server) sign(cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey, file string) {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	s.must(err)
	s.must(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
}

func (s *Server) writeKey(key *ecdsa.PrivateKey, file string) {
	der, err := x509.MarshalECPrivateKey(key)
	s.must(err)
	s.must(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600))
}

func (s *Server) must(err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatalf("set up etcd: %v", err)
	}
}
