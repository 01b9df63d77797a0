package sandhog

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Option is an option of Enqueue, by its name in the contract.
type Option Pair

// After enqueues a job that does not start before so much time has passed since the end of this attempt.
func After(delay time.Duration) Option {
	return Option{"after-ms", strconv.FormatUint(uint64(milliseconds(delay)), 10)}
}

// ID names the job: under one id it is one job however often it is enqueued, where the queue can tell.
func ID(id string) Option { return Option{"id", id} }

// Key is for queues that have partitions.
func Key(key string) Option { return Option{"key", key} }

// Header sends a header along, which the job's handler finds by Job.Header.
func Header(name, value string) Option { return Option{"header." + name, value} }

// Enqueue enqueues a follow-up job and answers its id. The body is written as JSON, and must be an object; job_type is added
// to it. The job becomes visible when this attempt is settled as complete, retry or reject. The manifest must grant its type
// (grants.enqueue).
func Enqueue(jobType string, body any, options ...Option) (string, error) {
	object, err := asObject(body)
	if err != nil {
		return "", fmt.Errorf("cannot enqueue a %q: %w", jobType, err)
	}
	name, err := json.Marshal(jobType)
	if err != nil {
		return "", err
	}
	if other, is := object["job_type"]; is && string(other) != string(name) {
		return "", fmt.Errorf("cannot enqueue a %q: its body says that it is a %s", jobType, other)
	}
	object["job_type"] = name
	text, err := json.Marshal(object)
	if err != nil {
		return "", err
	}
	id, err := enqueue(string(text), options)
	if err != nil {
		return "", fmt.Errorf("cannot enqueue a job: %w", err)
	}
	return id, nil
}

func asObject(body any) (map[string]json.RawMessage, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	object := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &object); err != nil || object == nil {
		return nil, fmt.Errorf("its body is no JSON object")
	}
	return object, nil
}
