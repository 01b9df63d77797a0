// A handler: it greets, now or a little later.
package main

import (
	"log"
	"time"

	"handlers/{{name}}/sandhog"
)

type greet struct {
	Name  string `json:"name"`
	Later bool   `json:"later"`
}

func handle(job sandhog.Job) (sandhog.Outcome, error) {
	var greet greet
	if err := job.Parse(&greet); err != nil {
		return sandhog.Outcome{}, err
	}
	if greet.Later && job.Attempt == 1 {
		// No failure: the job comes again.
		return sandhog.RetryAfter(5 * time.Second), nil
	}
	log.Printf("greeting %s", greet.Name)
	return sandhog.Complete("Hello, " + greet.Name + "!"), nil
}

func init() { sandhog.Handle(handle) }

func main() {}
