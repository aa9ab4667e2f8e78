// The reference design on Redis, awaited: httprouter, a mutex around two numbers modulo 2^64, and a
// step answered when Redis has stored the new number. With appendfsync always it is then on disk.
//
// The reference service does not wait for Redis; one that promises not to lose steps must. The lock is
// held meanwhile, since otherwise an older write could overwrite a newer one.
package main

import (
	"flag"
	"log"
	"net/http"
	"strconv"
	"sync"

	"github.com/gomodule/redigo/redis"
	"github.com/julienschmidt/httprouter"
)

type sequence struct {
	sync.RWMutex
	before, here uint64
	redis        redis.Conn
}

func (s *sequence) current() ([]byte, error) {
	s.RLock()
	here := s.here
	s.RUnlock()
	return strconv.AppendUint(nil, here, 10), nil
}

func (s *sequence) previous() ([]byte, error) {
	s.RLock()
	before := s.before
	s.RUnlock()
	return strconv.AppendUint(nil, before, 10), nil
}

func (s *sequence) next() ([]byte, error) {
	s.Lock()
	defer s.Unlock()
	here := s.before + s.here
	if here == 0 { // F(1), from the start
		here = 1
	}
	if _, err := s.redis.Do("SET", "fibonacci", here); err != nil {
		return nil, err
	}
	s.before, s.here = s.here, here
	return strconv.AppendUint(nil, here, 10), nil
}

func answer(prefix string, number func() ([]byte, error)) httprouter.Handle {
	return func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
		digits, err := number()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		body := make([]byte, 0, len(prefix)+len(digits)+1)
		body = append(append(append(body, prefix...), digits...), '}')
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}
}

func main() {
	address := flag.String("listen", "127.0.0.1:8081", "address to listen on")
	store := flag.String("redis", "127.0.0.1:6379", "address of Redis")
	flag.Parse()
	connection, err := redis.Dial("tcp", *store)
	if err != nil {
		log.Fatal(err)
	}
	numbers := &sequence{redis: connection}
	router := httprouter.New()
	router.GET("/current", answer(`{"current": `, numbers.current))
	router.GET("/next", answer(`{"next": `, numbers.next))
	router.GET("/previous", answer(`{"previous": `, numbers.previous))
	router.GET("/health", func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"status": "healthy"}`))
	})
	log.Fatal(http.ListenAndServe(*address, router))
}
