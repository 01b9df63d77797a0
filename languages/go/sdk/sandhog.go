// Package sandhog is what a handler in Go is written with.
//
//	func init() { sandhog.Handle(handle) }
//
//	func handle(job sandhog.Job) (sandhog.Outcome, error) {
//		var greet Greet
//		if err := job.Parse(&greet); err != nil {
//			return sandhog.Outcome{}, err
//		}
//		log.Println("greeting somebody")
//		return sandhog.Complete("Hello, " + greet.Name + "!"), nil
//	}
//
// What is printed, and what is logged by log or log/slog, goes to the job's log. An error is a failed attempt, and so is a
// panic; what follows is up to the manifest. Built for anything but the sandbox, as by go test, the package records what a
// handler asks for: see [Recorded].
package sandhog

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Job is one unit of work, as one attempt sees it.
type Job struct {
	// ID is the same on every attempt.
	ID string
	// Type is the string that selected this handler.
	Type string
	// Body is the job as it was enqueued, or as the last retry left it.
	Body string
	// Attempt says which start this is, from 1, interrupted ones included.
	Attempt int
	// Failures is how many attempts failed so far.
	Failures int
	// MaxFailures is how many bury the job.
	MaxFailures int
	// EnqueuedAt is when the job was enqueued.
	EnqueuedAt time.Time
	// Timeout is how long this attempt may take.
	Timeout time.Duration
	// Metadata are pairs of a name and a value. A name may come more than once.
	Metadata []Pair
}

// Pair is a name and a value.
type Pair struct{ Name, Value string }

// Outcome is how an attempt ended. Complete, Done, RetryAfter, RetryWithBackoff and Reject make one.
type Outcome struct {
	// Kind says which; the zero value is Completed.
	Kind Kind
	// Result is what a complete job answers; it is written as JSON. Nil: nothing.
	Result any
	// After is how long to wait for the next attempt. Nil: the handler's backoff.
	After *time.Duration
	// Body is what the next attempt sees as its body; it is written as JSON. Nil: the same as this one.
	Body any
	// Reason says why, to people.
	Reason string
}

// Kind is the kind of an outcome.
type Kind uint8

const (
	// Completed: the job is done.
	Completed Kind = iota
	// Retried: the job is not finished yet, which is no failure.
	Retried
	// Rejected: the job will never work.
	Rejected
)

// Failure is a failed attempt, as JobFailed hears of it.
type Failure struct {
	// Kind says what went wrong: "error", "trap", "timeout", "rejected" and others.
	Kind string
	// Message is the same for people.
	Message string
	// Buried says whether the job became a dead letter with this failure.
	Buried bool
	// Metadata are pairs of a name and a value.
	Metadata []Pair
}

// What the handler registered.
var (
	handler   func(Job) (Outcome, error)
	setUp     func() error
	tearDown  func()
	jobFailed func(Job, Failure)
)

// Handle says which function works the jobs. Call it in init.
func Handle(work func(Job) (Outcome, error)) { handler = work }

// SetUp says what is called once for an instance, before its first job. It pays where the manifest has instances reused.
// While it fails, the handler is not ready, and jobs wait. Call it in init.
func SetUp(f func() error) { setUp = f }

// TearDown says what is called once for an instance, after its last job, unless that panicked or was stopped. Call it in init.
func TearDown(f func()) { tearDown = f }

// JobFailed says what is told of failed attempts and of rejects. Nothing that it does changes what happens to the job. Call
// it in init.
func JobFailed(f func(Job, Failure)) { jobFailed = f }

// Complete says that the job is done, with a result, which is written as JSON.
func Complete(result any) Outcome { return Outcome{Kind: Completed, Result: result} }

// Done says that the job is done, without a result.
func Done() Outcome { return Outcome{Kind: Completed} }

// RetryAfter asks for another attempt, so much later. That is no failure: a job may ask for hours.
func RetryAfter(delay time.Duration) Outcome { return Outcome{Kind: Retried, After: &delay} }

// RetryWithBackoff asks for another attempt, when the handler's backoff says.
func RetryWithBackoff() Outcome { return Outcome{Kind: Retried} }

// Reject says that the job will never work: it becomes a dead letter at once, with this reason.
func Reject(reason string) Outcome { return Outcome{Kind: Rejected, Reason: reason} }

// === Outcome ===

// Because gives the reason of a retry.
func (o Outcome) Because(reason string) Outcome {
	o.Reason = reason
	return o
}

// WithBody says what the next attempt sees as its body: for a handler that notes how far it came.
func (o Outcome) WithBody(body any) Outcome {
	o.Body = body
	return o
}

// === Job ===

// Parse reads the body as JSON.
func (j Job) Parse(into any) error {
	if err := json.Unmarshal([]byte(j.Body), into); err != nil {
		return fmt.Errorf("cannot read the body: %w", err)
	}
	return nil
}

// Value is what the metadata say under this name, first.
func (j Job) Value(name string) (string, bool) {
	for _, pair := range j.Metadata {
		if pair.Name == name {
			return pair.Value, true
		}
	}
	return "", false
}

// Header is what the enqueuer sent along under this name.
func (j Job) Header(name string) (string, bool) { return j.Value("header." + name) }

// NewJob makes a job, for tests. The body is written as JSON.
func NewJob(jobType string, body any) Job {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return Job{
		ID: "job", Type: jobType, Body: string(text), Attempt: 1, MaxFailures: 1,
		EnqueuedAt: time.UnixMilli(0), Timeout: 30 * time.Second,
	}
}

// milliseconds rounds up, so that nothing comes too early, and says so much at most as the contract can carry.
func milliseconds(delay time.Duration) uint32 {
	ms := (max(delay, 0) + time.Millisecond - 1) / time.Millisecond
	return uint32(min(ms, math.MaxUint32))
}
