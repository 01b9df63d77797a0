// The handler of the conformance list: it does what its body says.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"handlers/conformance/sandhog"
)

type ask struct {
	Do      string            `json:"do"`
	Result  json.RawMessage   `json:"result"`
	AfterMs *int              `json:"after_ms"`
	Body    json.RawMessage   `json:"body"`
	Reason  string            `json:"reason"`
	Message string            `json:"message"`
	Text    string            `json:"text"`
	JobType string            `json:"job_type"`
	Options map[string]string `json:"options"`
	Key     string            `json:"key"`
	URL     string            `json:"url"`
	Path    string            `json:"path"`
}

func init() {
	sandhog.Handle(handle)
	sandhog.SetUp(func() error {
		slog.Info("set up")
		return nil
	})
	sandhog.TearDown(func() { slog.Info("torn down") })
	sandhog.JobFailed(func(_ sandhog.Job, failure sandhog.Failure) {
		slog.Info("failed: " + failure.Kind + " " + failure.Message)
	})
}

func main() {}

func handle(job sandhog.Job) (sandhog.Outcome, error) {
	var ask ask
	if err := job.Parse(&ask); err != nil {
		return sandhog.Outcome{}, err
	}
	switch ask.Do {
	case "complete":
		if ask.Result == nil {
			return sandhog.Done(), nil
		}
		return sandhog.Complete(ask.Result), nil
	case "retry":
		return retry(ask), nil
	case "reject":
		return sandhog.Reject(ask.Message), nil
	case "error":
		return sandhog.Outcome{}, errors.New(ask.Message)
	case "throw":
		panic(ask.Message)
	case "log":
		logEverywhere(ask.Text)
		return sandhog.Done(), nil
	case "echo":
		return sandhog.Complete(ask.Text), nil
	case "fields":
		return sandhog.Complete(fields(job)), nil
	case "grow":
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
		}
	case "spin":
		for {
		}
	}
	result, err := granted(ask)
	return sandhog.Complete(result), err
}

func retry(ask ask) sandhog.Outcome {
	outcome := sandhog.RetryWithBackoff()
	if ask.AfterMs != nil {
		outcome = sandhog.RetryAfter(time.Duration(*ask.AfterMs) * time.Millisecond)
	}
	if ask.Body != nil {
		outcome = outcome.WithBody(ask.Body)
	}
	return outcome.Because(ask.Reason)
}

func logEverywhere(text string) {
	for _, level := range []slog.Level{
		sandhog.LevelTrace, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError,
	} {
		slog.Log(nil, level, text)
	}
	fmt.Println(text)
	fmt.Fprintln(os.Stderr, text)
}

func fields(job sandhog.Job) any {
	metadata := [][2]string{}
	for _, pair := range job.Metadata {
		metadata = append(metadata, [2]string{pair.Name, pair.Value})
	}
	return map[string]any{
		"id": job.ID, "job_type": job.Type, "body": job.Body, "attempt": job.Attempt, "failures": job.Failures,
		"max_failures": job.MaxFailures, "enqueued_at_ms": job.EnqueuedAt.UnixMilli(),
		"timeout_ms": job.Timeout.Milliseconds(), "metadata": metadata,
	}
}

// granted does what needs a grant. An error that is part of the answer is a result here.
func granted(ask ask) (any, error) {
	switch ask.Do {
	case "enqueue":
		var options []sandhog.Option
		for name, value := range ask.Options {
			options = append(options, sandhog.Option{Name: name, Value: value})
		}
		id, err := sandhog.Enqueue(ask.JobType, ask.Body, options...)
		return textOr(id, err), nil
	case "config":
		if value, is := sandhog.Config(ask.Key); is {
			return value, nil
		}
		return json.RawMessage("null"), nil
	case "state":
		return sandhog.Increment(ask.Key, 1)
	case "http":
		answer, err := sandhog.Fetch(sandhog.Request{URL: ask.URL})
		return map[string]any{"status": answer.Status, "body": string(answer.Body)}, err
	case "read":
		bytes, err := os.ReadFile(ask.Path)
		return textOr(string(bytes), err), nil
	case "write":
		return textOr("", os.WriteFile(ask.Path, []byte(ask.Text), 0o644)), nil
	}
	return nil, fmt.Errorf("cannot %q", ask.Do)
}

func textOr(text string, err error) string {
	if err != nil {
		return err.Error()
	}
	return text
}
