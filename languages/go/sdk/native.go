//go:build !wasip1

package sandhog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Recorded is what a handler that is not in the sandbox, but in a test, asked for; and what it finds. Requests go out as they
// are. Start each test with a new one.
type Recorded struct {
	// Config are the values that Config finds.
	Config map[string]string
	// State is what the handler keeps.
	State map[string][]byte
	// Enqueued are the follow-up jobs.
	Enqueued []FollowUp
}

// FollowUp is a job that was enqueued: JSON, job_type included.
type FollowUp struct {
	Body    string
	Options []Option
}

// Recorder is where this is recorded. It only exists outside of the sandbox.
var Recorder = &Recorded{}

func writeLog(level uint32, line string) {
	fmt.Fprintf(os.Stderr, "%s: %s\n", []string{"trace", "debug", "info", "warn", "error"}[level], line)
}

func enqueue(job string, options []Option) (string, error) {
	Recorder.Enqueued = append(Recorder.Enqueued, FollowUp{job, options})
	return "recorded/" + strconv.Itoa(len(Recorder.Enqueued)), nil
}

func config(key string) (string, bool) {
	value, is := Recorder.Config[key]
	return value, is
}

func stateGet(key string) ([]byte, error) { return slices.Clone(Recorder.State[key]), nil }

func stateSet(key string, value []byte) error {
	if Recorder.State == nil {
		Recorder.State = map[string][]byte{}
	}
	Recorder.State[key] = append([]byte{}, value...)
	return nil
}

func stateDelete(key string) error {
	delete(Recorder.State, key)
	return nil
}

func stateIncrement(key string, delta uint64) (uint64, error) {
	var sum uint64
	if value, is := Recorder.State[key]; is {
		before, err := strconv.ParseUint(string(value), 10, 64)
		if err != nil {
			return 0, errors.New("something else is there than decimal digits")
		}
		sum = before
	}
	sum += delta
	return sum, stateSet(key, []byte(strconv.FormatUint(sum, 10)))
}

func stateKeys() ([]string, error) { return slices.Sorted(maps.Keys(Recorder.State)), nil }

func fetch(request Request) (Response, error) {
	made, err := http.NewRequest(request.Method, request.URL, bytes.NewReader(request.Body))
	if err != nil {
		return Response{}, err
	}
	for _, pair := range request.Header {
		made.Header.Add(pair.Name, pair.Value)
	}
	answered, err := http.DefaultTransport.RoundTrip(made)
	if err != nil {
		return Response{}, err
	}
	defer answered.Body.Close()
	response := Response{Status: answered.StatusCode}
	for name, values := range answered.Header {
		for _, value := range values {
			response.Header = append(response.Header, Pair{strings.ToLower(name), value})
		}
	}
	response.Body, err = io.ReadAll(answered.Body)
	return response, err
}
