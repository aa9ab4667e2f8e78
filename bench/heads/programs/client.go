// Sends requests with Go's net/http: go run client.go BASE CASE...
//
// A case is METHOD|PATH|NAME|VALUE|BODY, where NAME and VALUE (a header) and BODY may be empty. The
// cases are sent twice.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func ask(base string, parts []string) error {
	var body io.Reader
	if parts[4] != "" {
		body = strings.NewReader(parts[4])
	}
	request, err := http.NewRequest(parts[0], base+parts[1], body)
	if err != nil {
		return err
	}
	if parts[2] != "" {
		request.Header.Set(parts[2], parts[3])
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

func main() {
	for turn := 0; turn < 2; turn++ {
		for _, given := range os.Args[2:] {
			if err := ask(os.Args[1], strings.Split(given, "|")); err != nil {
				log.Fatal(err)
			}
		}
	}
}
