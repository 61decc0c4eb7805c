// Step 05: a chat room for many, to be finished.
// Contract: lessons/PROTOCOL.md, section 2, "05, the room".
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

const usage = `usage: my_05 [ADDRESS] [--limit N]
  ADDRESS    HOST:PORT to listen on, 127.0.0.1:12345 if not given
  --limit N  the most guests at once, 1 to 10000, 10000 if not given`

// event is something that has happened. Only one of its parts is used at a time.
type event struct {
	arrived net.Conn // a connection was accepted
	line    []byte   // guest `number` has said this
	number  int      // without a line: guest `number` has left
}

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

// room is the only goroutine that knows who is here: so it needs no lock.
func room(limit int, inbox chan event) {
	guests := map[int]net.Conn{}
	last := 0
	for happened := range inbox {
		switch {
		case happened.arrived != nil:
			if len(guests) >= limit {
				// TODO 1. Tell it that the room is full. It uses up no number.
				happened.arrived.Close()
				continue
			}
			last++
			guests[last] = happened.arrived
			// TODO 2. Greet it, and tell the others.
			go readFrom(last, happened.arrived, inbox)
		case happened.line != nil:
			// TODO 3. Everybody else gets `guest-N: the line`, cleaned of what may not pass.
			// TODO 4. A guest that does not read must not hold up this goroutine. Each needs
			//         a queue of at most 1 MiB and a goroutine that writes. A full queue: it is out.
		default:
			guests[happened.number].Close()
			delete(guests, happened.number)
			// TODO 5. Tell the others.
		}
	}
}

// readFrom turns the bytes of one guest into events.
func readFrom(number int, stream net.Conn, inbox chan event) {
	bytes := make([]byte, 65536)
	for {
		// A reset ends a guest as the end of its stream does.
		if _, err := stream.Read(bytes); err != nil {
			break
		}
		// TODO 6. Collect the bytes up to LF, drop a CR before it, and send event{line, number}.
		//         A line of over 4096 bytes is answered once, and thrown away up to its LF.
	}
	inbox <- event{number: number}
}

func main() {
	args := os.Args[1:]
	for _, arg := range args {
		if arg == "-h" || arg == "--help" {
			fmt.Println(usage)
			return
		}
	}
	address, limit := "", uint64(10000)
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--limit":
			i++
			if i == len(args) {
				refuse("the number after --limit is missing")
			}
			number, err := strconv.ParseUint(args[i], 10, 16)
			if err != nil || number < 1 || number > 10000 {
				refuse("--limit must be a number from 1 to 10000, not " + args[i])
			}
			limit = number
		case strings.HasPrefix(arg, "-"):
			refuse("unknown option " + arg)
		case address != "":
			refuse("unexpected argument " + arg)
		default:
			address = arg
		}
	}
	if address == "" {
		address = "127.0.0.1:12345"
	}
	listener := listen(address)
	// When it is full, the readers wait, and stop reading.
	inbox := make(chan event, 1024)
	go room(int(limit), inbox)
	for {
		stream, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "cannot accept a client:", err)
			continue
		}
		inbox <- event{arrived: stream}
	}
}
