package embed

import (
	"fmt"
	"runtime"
	"strings"

	log "github.com/golang/glog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger passes what etcd says from level up on to our log. Where etcd would
// end the process, or panic, it ends the goroutine and tells fatal.
func newLogger(level zap.AtomicLevel, fatal chan<- error) *zap.Logger {
	enc := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{
		MessageKey: "msg", EncodeDuration: zapcore.StringDurationEncoder})
	hook := fatalHook(fatal)
	return zap.New(zapcore.NewCore(enc, glogWriter{}, level),
		zap.WithFatalHook(hook), zap.WithPanicHook(hook))
}

// glogWriter is a zap sink.
type glogWriter struct{}

func (glogWriter) Write(p []byte) (int, error) {
	log.Errorf("embedded etcd: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (glogWriter) Sync() error { return nil }

type fatalHook chan<- error

// OnWrite implements zapcore.CheckWriteHook.
func (h fatalHook) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	select {
	case h <- fmt.Errorf("etcd cannot go on: %s %v", entry.Message, enc.Fields):
	default: // a first one is being dealt with
	}
	runtime.Goexit()
}
