// Package nethttp lets net/http's client send by Sandhog: http.Client{Transport: nethttp.Transport{}}.
package nethttp

import (
	"bytes"
	"io"
	"net/http"

	"handlers/{{name}}/sandhog"
)

// Transport sends requests as [sandhog.Fetch] does: what is not granted is refused.
type Transport struct{}

// RoundTrip sends a request and waits for all of the answer.
func (Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	fetch := sandhog.Request{Method: request.Method, URL: request.URL.String()}
	for name, values := range request.Header {
		for _, value := range values {
			fetch.Header = append(fetch.Header, sandhog.Pair{Name: name, Value: value})
		}
	}
	if request.Body != nil {
		body, err := io.ReadAll(request.Body)
		if closed := request.Body.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return nil, err
		}
		fetch.Body = body
	}
	if err := request.Context().Err(); err != nil {
		return nil, err
	}
	fetched, err := sandhog.Fetch(fetch)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	for _, pair := range fetched.Header {
		header.Add(pair.Name, pair.Value)
	}
	return &http.Response{
		Status: http.StatusText(fetched.Status), StatusCode: fetched.Status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(fetched.Body)), ContentLength: int64(len(fetched.Body)),
		Request: request,
	}, nil
}
