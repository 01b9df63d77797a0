// Asks a service whether something is finished, and asks for another attempt until it is.
package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"poll-go/sandhog"
)

// poll is the body of the job. What came of earlier attempts stands in it too.
type poll struct {
	JobType string `json:"job_type"`
	URL     string `json:"url"`
	// EverySeconds is how long to wait where the service does not say.
	EverySeconds int `json:"every_seconds"`
	Polls        int `json:"polls"`
}

// status is what the service answers.
type status struct {
	State  string          `json:"state"`
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"`
}

func handle(job sandhog.Job) (sandhog.Outcome, error) {
	poll := poll{JobType: job.Type, EverySeconds: 30}
	if err := job.Parse(&poll); err != nil {
		return sandhog.Outcome{}, err
	}
	poll.Polls++
	answer, err := sandhog.Fetch(sandhog.Request{URL: poll.URL})
	if err != nil {
		return sandhog.Outcome{}, err
	}
	return decide(poll, answer)
}

// decide says what follows from an answer. It asks nobody, so that a test can go through all answers.
func decide(poll poll, answer sandhog.Response) (sandhog.Outcome, error) {
	switch {
	case answer.Status == 404:
		return sandhog.Reject("the service does not know it"), nil
	case answer.Status != 200:
		return sandhog.Outcome{}, fmt.Errorf("the service answered %d", answer.Status)
	}
	var status status
	if err := json.Unmarshal(answer.Body, &status); err != nil {
		return sandhog.Outcome{}, fmt.Errorf("the service answered no JSON: %w", err)
	}
	slog.Info("asked", "state", status.State, "polls", poll.Polls)
	switch status.State {
	case "finished":
		return sandhog.Complete(map[string]any{"polls": poll.Polls, "result": status.Result}), nil
	case "failed":
		return sandhog.Reject("it failed: " + status.Error), nil
	}
	// Not a failure, so that it may go on for hours.
	return sandhog.RetryAfter(pause(poll, answer)).Because("it is " + status.State).WithBody(poll), nil
}

// pause is as long as the service says, or else the job.
func pause(poll poll, answer sandhog.Response) time.Duration {
	seconds := poll.EverySeconds
	if said, is := answer.Get("retry-after"); is {
		if number, err := strconv.Atoi(said); err == nil {
			seconds = number
		}
	}
	return time.Duration(seconds) * time.Second
}

func init() { sandhog.Handle(handle) }

func main() {}
