// Step 01: a server that says hello. Contract: lessons/PROTOCOL.md, section 1.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

const usage = `usage: my_01 [ADDRESS]
  ADDRESS  HOST:PORT to listen on, 127.0.0.1:12345 if not given`

// refuse is for what can't be understood: a line, the usage, and exit status 2.
func refuse(line string) {
	fmt.Fprintf(os.Stderr, "%s\n\n%s\n", line, usage)
	os.Exit(2)
}

// listen binds and listens, and prints where, or says in one line why it can't.
func listen(address string) net.Listener {
	host, port, err := net.SplitHostPort(address)
	// net.Listen would also take names of services, such as "http".
	if _, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || host == "" {
		refuse("an address is HOST:PORT, such as 127.0.0.1:12345, not " + address)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot listen on %s: %v. Who has the port: ss -tlnp. Or choose another port.\n", address, err)
		os.Exit(1)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	return listener
}

func main() {
	args := os.Args[1:]
	for _, arg := range args {
		if arg == "-h" || arg == "--help" {
			fmt.Println(usage)
			return
		}
	}
	for i, arg := range args {
		if strings.HasPrefix(arg, "-") {
			refuse("unknown option " + arg)
		}
		if i > 0 {
			refuse("unexpected argument " + arg)
		}
	}
	address := "127.0.0.1:12345"
	if len(args) > 0 {
		address = args[0]
	}
	listener := listen(address)
	for {
		stream, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "cannot accept a client:", err)
			continue
		}
		// This client may be gone already. That must not end the server.
		if _, err := stream.Write([]byte("hello from 01_bind_listen\n")); err != nil {
			fmt.Fprintln(os.Stderr, "a client was lost:", err)
		}
		stream.Close()
	}
}
