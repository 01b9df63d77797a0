package sandhog

// Request is a request by HTTP.
type Request struct {
	// Method is GET if it is empty.
	Method string
	// URL is where it goes: scheme, host, path and query.
	URL    string
	Header []Pair
	Body   []byte
}

// Response is the answer to a request, whatever its status.
type Response struct {
	Status int
	// Header has names in lower case. A name may come more than once.
	Header []Pair
	Body   []byte
}

// Get is what a header says, first.
func (r Response) Get(name string) (string, bool) {
	for _, pair := range r.Header {
		if pair.Name == name {
			return pair.Value, true
		}
	}
	return "", false
}

// Fetch sends a request and waits for all of the answer. The manifest must grant where it goes (grants.http). Redirects are
// not followed. For net/http there is a Transport in the folder nethttp, which makes a handler three times as large.
func Fetch(request Request) (Response, error) { return fetch(request) }
