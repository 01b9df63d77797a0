package main

import (
	"reflect"
	"testing"
	"time"

	"poll-go/sandhog"
)

func TestAnswersAreDecided(t *testing.T) {
	asked := poll{JobType: "poll-go", URL: "http://service/7", EverySeconds: 30, Polls: 1}
	answer := func(body string, header ...sandhog.Pair) sandhog.Response {
		return sandhog.Response{Status: 200, Header: header, Body: []byte(body)}
	}
	running := func(delay time.Duration) sandhog.Outcome {
		return sandhog.RetryAfter(delay).Because("it is running").WithBody(asked)
	}
	for _, one := range []struct {
		answer   sandhog.Response
		expected sandhog.Outcome
	}{
		{answer(`{"state":"running"}`), running(30 * time.Second)},
		{answer(`{"state":"running"}`, sandhog.Pair{Name: "retry-after", Value: "5"}), running(5 * time.Second)},
		{answer(`{"state":"failed","error":"no paper"}`), sandhog.Reject("it failed: no paper")},
		{sandhog.Response{Status: 404}, sandhog.Reject("the service does not know it")},
	} {
		outcome, err := decide(asked, one.answer)
		if err != nil || !reflect.DeepEqual(outcome, one.expected) {
			t.Errorf("%s: %+v, %v", one.answer.Body, outcome, err)
		}
	}
	if _, err := decide(asked, sandhog.Response{Status: 503}); err == nil {
		t.Error("an answer of 503 is no error")
	}
}
