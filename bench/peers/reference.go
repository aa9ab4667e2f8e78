// The reference design as a peer: httprouter, an RWMutex around two numbers.
//
// -integers uint64 counts modulo 2^64, as the reference service does; -integers exact uses math/big.
// Numbers are in memory. With -redis, a step is answered when Redis has stored the new number, which is
// then on disk if appendfsync is always. The reference service does not wait for Redis; one that promises
// not to lose steps must. It holds the lock meanwhile, or an older write could overwrite a newer one.
package main

import (
	"flag"
	"log"
	"math/big"
	"net/http"
	"strconv"
	"sync"

	"github.com/gomodule/redigo/redis"
	"github.com/julienschmidt/httprouter"
)

// Each method of sequence returns the decimal text of an answer.
type sequence interface {
	current() []byte
	next() []byte
	previous() []byte
}

type uint64Sequence struct {
	sync.RWMutex
	before, here uint64
	redis        redis.Conn // nil: in memory
}

func (s *uint64Sequence) current() []byte {
	s.RLock()
	here := s.here
	s.RUnlock()
	return strconv.AppendUint(nil, here, 10)
}

func (s *uint64Sequence) previous() []byte {
	s.RLock()
	before := s.before
	s.RUnlock()
	return strconv.AppendUint(nil, before, 10)
}

func (s *uint64Sequence) next() []byte {
	s.Lock()
	s.before, s.here = s.here, s.before+s.here
	if s.here == 0 { // F(1), from the start: before is 0 there, not F(-1)
		s.here = 1
	}
	here := s.here
	if s.redis != nil {
		if _, err := s.redis.Do("SET", "fibonacci", here); err != nil {
			log.Fatal(err)
		}
	}
	s.Unlock()
	return strconv.AppendUint(nil, here, 10)
}

// bigSequence never changes a published number, so its text is computed outside the lock.
type bigSequence struct {
	sync.RWMutex
	before, here *big.Int
}

func (s *bigSequence) current() []byte {
	s.RLock()
	here := s.here
	s.RUnlock()
	return here.Append(nil, 10)
}

func (s *bigSequence) previous() []byte {
	s.RLock()
	before := s.before
	s.RUnlock()
	return before.Append(nil, 10)
}

func (s *bigSequence) next() []byte {
	s.Lock()
	here := new(big.Int).Add(s.before, s.here)
	if here.Sign() == 0 {
		here.SetInt64(1)
	}
	s.before, s.here = s.here, here
	s.Unlock()
	return here.Append(nil, 10)
}

// fibonacci returns F(n) and F(n+1) by fast doubling.
func fibonacci(n uint64) (*big.Int, *big.Int) {
	if n == 0 {
		return big.NewInt(0), big.NewInt(1)
	}
	a, b := fibonacci(n / 2)
	c := new(big.Int).Lsh(b, 1)
	c.Sub(c, a).Mul(c, a)
	d := new(big.Int).Add(a.Mul(a, a), b.Mul(b, b))
	if n%2 == 0 {
		return c, d
	}
	return d, c.Add(c, d)
}

func startAt(integers string, n uint64, store redis.Conn) sequence {
	before, here := big.NewInt(0), big.NewInt(0)
	if n > 0 {
		before, here = fibonacci(n - 1)
	}
	if integers == "exact" {
		return &bigSequence{before: before, here: here}
	}
	mask := new(big.Int).SetUint64(^uint64(0))
	return &uint64Sequence{
		before: before.And(before, mask).Uint64(), here: here.And(here, mask).Uint64(), redis: store}
}

func answer(prefix string, number func() []byte) httprouter.Handle {
	return func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
		digits := number()
		body := make([]byte, 0, len(prefix)+len(digits)+1)
		body = append(append(append(body, prefix...), digits...), '}')
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}
}

func main() {
	address := flag.String("listen", "127.0.0.1:8081", "address to listen on")
	integers := flag.String("integers", "uint64", "uint64 (modulo 2^64) or exact (math/big)")
	index := flag.Uint64("index", 0, "the first index")
	redisAddress := flag.String("redis", "", "address of Redis, which stores each number; empty: none does")
	flag.Parse()
	var store redis.Conn
	if *redisAddress != "" {
		var err error
		if store, err = redis.Dial("tcp", *redisAddress); err != nil {
			log.Fatal(err)
		}
	}
	numbers := startAt(*integers, *index, store)
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
