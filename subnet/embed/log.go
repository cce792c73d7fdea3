package embed

import (
	"fmt"
	"runtime"
	"strings"

	log "github.com/golang/glog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger returns a logger that forwards etcd's entries from level up to our
// log. An entry by which etcd would end the process or panic ends the goroutine
// instead, and its text goes to fatal.
func newLogger(level zap.AtomicLevel, fatal chan<- error) *zap.Logger {
	enc := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{
		MessageKey: "msg", EncodeDuration: zapcore.StringDurationEncoder})
	hook := fatalHook(fatal)
	return zap.New(zapcore.NewCore(enc, zapcore.AddSync(glogWriter{}), level),
		zap.WithFatalHook(hook), zap.WithPanicHook(hook))
}

// glogWriter writes lines to our log.
type glogWriter struct{}

func (glogWriter) Write(p []byte) (int, error) {
	log.Errorf("embedded etcd: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

type fatalHook chan<- error

// OnWrite implements zapcore.CheckWriteHook.
func (h fatalHook) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	select {
	case h <- fmt.Errorf("etcd failed: %s %v", entry.Message, enc.Fields):
	default: // an earlier one is pending
	}
	runtime.Goexit()
}
