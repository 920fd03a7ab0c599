// A client of the brokers under test, with franz-go.
//
//	franz-go-client check SUBJECT BOOTSTRAP NAME
//	franz-go-client produce BOOTSTRAP TOPIC COUNT
//	franz-go-client member BOOTSTRAP TOPIC GROUP [SESSION_TIMEOUT_MS HEARTBEAT_INTERVAL_MS]
//
// check does one thing and says what was wrong; NAME begins the names of the topics and groups that it makes. member
// prints each value, then commits; SIGTERM makes it leave. Without times of its own it follows KIP-848.
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

const patience = 30 * time.Second

func main() {
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 4 && arguments[0] == "check":
		check, known := checks[arguments[1]]
		if !known {
			fail(fmt.Errorf("no subject %q", arguments[1]))
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := check(ctx, arguments[2], arguments[3]); err != nil {
			fail(err)
		}
	case len(arguments) == 4 && arguments[0] == "produce":
		if err := produce(arguments[1], arguments[2], arguments[3]); err != nil {
			fail(err)
		}
	case (len(arguments) == 4 || len(arguments) == 6) && arguments[0] == "member":
		if err := member(arguments[1], arguments[2], arguments[3], arguments[4:]...); err != nil {
			fail(err)
		}
	case len(arguments) == 1 && arguments[0] == "subjects":
		for name := range checks {
			fmt.Println(name)
		}
	default:
		fail(fmt.Errorf("usage: check SUBJECT BOOTSTRAP NAME | produce BOOTSTRAP TOPIC COUNT | member BOOTSTRAP TOPIC GROUP [SESSION_MS HEARTBEAT_MS]"))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
