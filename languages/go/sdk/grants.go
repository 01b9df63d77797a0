package sandhog

import "fmt"

// Config is a value that the manifest grants (grants.config), if it does.
func Config(key string) (string, bool) { return config(key) }

// Get is a value of the handler's state, nil where there is none. An attempt sees the state as it was at its first question,
// and what it wrote itself; what it wrote is kept when it is settled as complete or retry. The manifest must say
// grants.state = true.
func Get(key string) ([]byte, error) {
	value, err := stateGet(key)
	return value, state("read", key, err)
}

// Set puts a value there, whatever was there before.
func Set(key string, value []byte) error { return state("write", key, stateSet(key, value)) }

// Delete takes a value away, if it is there.
func Delete(key string) error { return state("delete", key, stateDelete(key)) }

// Increment adds to a number, from 0 where there is none, and answers the sum. If another attempt changes it before this one
// is settled, the job runs again: nothing is counted twice.
func Increment(key string, delta uint64) (uint64, error) {
	sum, err := stateIncrement(key, delta)
	return sum, state("increment", key, err)
}

// Keys are all keys of the state, in their order.
func Keys() ([]string, error) {
	keys, err := stateKeys()
	if err != nil {
		return nil, fmt.Errorf("cannot list the keys: %w", err)
	}
	return keys, nil
}

func state(what, key string, err error) error {
	if err != nil {
		return fmt.Errorf("cannot %s %q: %w", what, key, err)
	}
	return nil
}
