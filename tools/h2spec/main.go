// h2spec, the conformance judge of HTTP/2, as one program: its own command line needs modules that are not kept any more.
//
//	h2spec HOST PORT PATH
//
// It prints its report and ends with 1 if a case failed.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/summerwind/h2spec"
	"github.com/summerwind/h2spec/config"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: h2spec HOST PORT PATH")
		os.Exit(64)
	}
	port, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "no port:", os.Args[2])
		os.Exit(64)
	}
	passed, err := h2spec.Run(&config.Config{
		Host:         os.Args[1],
		Port:         port,
		Path:         os.Args[3],
		Timeout:      2 * time.Second,
		MaxHeaderLen: 4000,
		Strict:       true,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}
