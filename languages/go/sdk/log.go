package sandhog

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"strconv"
	"strings"
)

// LevelTrace is a level below slog.LevelDebug: the contract has one more than slog.
const LevelTrace = slog.LevelDebug - 4

// Levels of the contract.
const (
	trace uint32 = iota
	debug
	info
	warn
	fault
)

func init() {
	// The runner says when, and of which job. Whatever package log writes comes out as info.
	log.SetFlags(0)
	slog.SetDefault(slog.New(jobLog{}))
}

// jobLog makes lines of the job's log: the message, and behind it what belongs to it as name=value.
type jobLog struct {
	group string
	attrs string
}

func (jobLog) Enabled(context.Context, slog.Level) bool { return true }

func (l jobLog) Handle(_ context.Context, record slog.Record) error {
	var line strings.Builder
	line.WriteString(record.Message)
	line.WriteString(l.attrs)
	record.Attrs(func(attr slog.Attr) bool {
		l.write(&line, l.group, attr)
		return true
	})
	writeLog(level(record.Level), line.String())
	return nil
}

func (l jobLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	var line strings.Builder
	for _, attr := range attrs {
		l.write(&line, l.group, attr)
	}
	l.attrs += line.String()
	return l
}

func (l jobLog) WithGroup(name string) slog.Handler {
	l.group += name + "."
	return l
}

func (l jobLog) write(line *strings.Builder, group string, attr slog.Attr) {
	value := attr.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if attr.Key != "" {
			group += attr.Key + "."
		}
		for _, inner := range value.Group() {
			l.write(line, group, inner)
		}
		return
	}
	text := value.String()
	if strings.ContainsAny(text, " \t\n\"=") || text == "" {
		text = strconv.Quote(text)
	}
	fmt.Fprintf(line, " %s%s=%s", group, attr.Key, text)
}

func level(of slog.Level) uint32 {
	switch {
	case of < slog.LevelDebug:
		return trace
	case of < slog.LevelInfo:
		return debug
	case of < slog.LevelWarn:
		return info
	case of < slog.LevelError:
		return warn
	}
	return fault
}
