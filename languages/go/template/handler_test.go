package main

import (
	"testing"

	"handlers/{{name}}/sandhog"
)

func TestGreetsByName(t *testing.T) {
	outcome, err := handle(sandhog.NewJob("{{name}}", greet{Name: "Ada"}))
	if err != nil {
		t.Fatal(err)
	}
	if outcome != sandhog.Complete("Hello, Ada!") {
		t.Fatal(outcome)
	}
}
