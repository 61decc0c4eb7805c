// Step 05: a chat room for many, to be finished.
// Contract: lessons/PROTOCOL.md, section 2, "05, the room".

import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;

class My05 {
    static final String USAGE = """
        usage: My05 [ADDRESS] [--limit N]
          ADDRESS    HOST:PORT to listen on, 127.0.0.1:12345 if not given
          --limit N  the most guests at once, 1 to 10000, 10000 if not given""";

    /** What has happened: `stream` has arrived; guest `number` said `line`, or left without one. */
    record Event(Socket stream, int number, byte[] line) {}

    /** When it is full, the readers wait, and stop reading. */
    static final BlockingQueue<Event> INBOX = new ArrayBlockingQueue<>(1024);

    /** What can't be understood: a line that names it, the usage, and exit status 2. */
    static void refuse(String line) {
        System.err.println(line + "\n\n" + USAGE);
        System.exit(2);
    }

    /** HOST:PORT. The port follows the last colon, because an IPv6 host has colons, too. */
    static InetSocketAddress resolve(String address) {
        if (!address.matches(".+:[0-9]{1,5}")
                || Integer.parseInt(address.substring(address.lastIndexOf(':') + 1)) > 65535) {
            refuse("an address is HOST:PORT, such as 127.0.0.1:12345, not " + address);
        }
        int colon = address.lastIndexOf(':');
        // It takes an IPv6 host with or without brackets.
        return new InetSocketAddress(
            address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)));
    }

    /** Binds and listens, and prints where, or says in one line why it can't. */
    static ServerSocket listen(String address) {
        InetSocketAddress place = resolve(address);
        try {
            ServerSocket listener = new ServerSocket();
            // So the port can be had again at once after a restart.
            listener.setReuseAddress(true);
            listener.bind(place, 128);
            InetAddress host = listener.getInetAddress();
            String shown = host.getHostAddress();
            shown = shown.contains(":") ? "[" + shown + "]" : shown;
            System.out.println("listening on " + shown + ":" + listener.getLocalPort());
            System.out.flush();
            return listener;
        } catch (IOException error) {
            System.err.println("cannot listen on " + address + ": " + error.getMessage()
                + ". Who has the port: ss -tlnp. Or choose another port.");
            System.exit(1);
            return null;
        }
    }

    /** The only thread that knows who is here: so it needs no lock. */
    static void room(int limit) throws InterruptedException, IOException {
        Map<Integer, Socket> guests = new HashMap<>();
        int last = 0;
        while (true) {
            Event event = INBOX.take();
            if (event.stream() != null) {
                if (guests.size() >= limit) {
                    // TODO 1. Tell it that the room is full. It uses up no number.
                    event.stream().close();
                    continue;
                }
                last++;
                guests.put(last, event.stream());
                // TODO 2. Greet it, and tell the others.
                int number = last;
                start(() -> readFrom(number, event.stream()));
            } else if (event.line() != null) {
                // TODO 3. Everybody else gets `guest-N: the line`, cleaned of what may not pass.
                // TODO 4. A guest that does not read must not hold up this thread. Each guest needs
                //         a queue of at most 1 MiB and a thread that writes. A full queue: it is out.
            } else {
                guests.remove(event.number()).close();
                // TODO 5. Tell the others.
            }
        }
    }

    /** Turns the bytes of one guest into events. */
    static void readFrom(int number, Socket stream) throws InterruptedException {
        byte[] bytes = new byte[65536];
        try {
            InputStream input = stream.getInputStream();
            while (input.read(bytes) >= 0) {
                // TODO 6. Collect the bytes up to LF, drop a CR before it, and put an Event.
                //         A line of over 4096 bytes is answered once, and thrown away up to its LF.
            }
        } catch (IOException error) {
            // A reset ends a guest as the end of its stream does.
        }
        INBOX.put(new Event(null, number, null));
    }

    /** Work that may fail. */
    interface Work {
        void run() throws Exception;
    }

    /** Starts a thread that does not keep the program alive. */
    static void start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (Exception error) {
                System.err.println("a thread has failed: " + error);
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    public static void main(String[] args) throws InterruptedException {
        List<String> words = Arrays.asList(args);
        if (words.contains("-h") || words.contains("--help")) {
            System.out.println(USAGE);
            return;
        }
        String address = null;
        int limit = 10000;
        for (int i = 0; i < args.length; i++) {
            if (args[i].equals("--limit")) {
                i++;
                if (i == args.length) {
                    refuse("the number after --limit is missing");
                }
                limit = args[i].matches("[0-9]{1,5}") ? Integer.parseInt(args[i]) : 0;
                if (limit < 1 || limit > 10000) {
                    refuse("--limit must be a number from 1 to 10000, not " + args[i]);
                }
            } else if (args[i].startsWith("-")) {
                refuse("unknown option " + args[i]);
            } else if (address != null) {
                refuse("unexpected argument " + args[i]);
            } else {
                address = args[i];
            }
        }
        ServerSocket listener = listen(address != null ? address : "127.0.0.1:12345");
        int most = limit;
        start(() -> room(most));
        while (true) {
            try {
                INBOX.put(new Event(listener.accept(), 0, null));
            } catch (IOException error) {
                System.err.println("cannot accept a client: " + error.getMessage());
            }
        }
    }
}
