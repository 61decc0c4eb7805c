import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashSet;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The room of 05 in Java: each guest has a thread that reads and a thread that writes. */
class Room {
    static final int MAX_LINE_BYTES = 4096;
    static final int MAX_BACKLOG_BYTES = 1 << 20;
    static final int CLOSE_MILLISECONDS = 30_000;
    static final int REFUSAL_MILLISECONDS = 1000;
    static final String USAGE = "usage: 05_threaded_server [ADDRESS] [--limit N]";
    static final Pattern UNWANTED =
        Pattern.compile("[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]");

    final int limit;
    final Set<Guest> guests = new LinkedHashSet<>();
    int names = 0;

    Room(int limit) {
        this.limit = limit;
    }

    /** One client: its connection, and what waits to be sent. */
    class Guest {
        final Socket socket;
        final String name;
        final ByteArrayOutputStream backlog = new ByteArrayOutputStream();
        final Thread writer = new Thread(this::write);
        boolean ends = false;

        Guest(Socket socket, String name) {
            this.socket = socket;
            this.name = name;
            writer.setDaemon(true);
        }

        /** Queues these bytes. False says that too many wait already. */
        synchronized boolean take(byte[] bytes) {
            backlog.writeBytes(bytes);
            notify();
            return backlog.size() <= MAX_BACKLOG_BYTES;
        }

        /** Nothing is queued after what waits now. */
        synchronized void end() {
            ends = true;
            notify();
        }

        synchronized byte[] next() throws InterruptedException {
            while (backlog.size() == 0 && !ends) {
                wait();
            }
            byte[] bytes = backlog.toByteArray();
            backlog.reset();
            return bytes;
        }

        void write() {
            try {
                OutputStream out = socket.getOutputStream();
                for (byte[] bytes = next(); bytes.length > 0; bytes = next()) {
                    out.write(bytes);
                }
                socket.shutdownOutput();
            } catch (IOException | InterruptedException gone) {
                // The thread that reads notices it, too.
            }
        }

        void read() {
            try {
                InputStream in = socket.getInputStream();
                byte[] piece = new byte[16 * 1024];
                ByteArrayOutputStream line = new ByteArrayOutputStream();
                for (int size = in.read(piece); size > 0; size = in.read(piece)) {
                    for (int i = 0; i < size; i++) {
                        if (piece[i] == '\n') {
                            hear(this, line.toByteArray());
                            line.reset();
                        } else if (line.size() < MAX_LINE_BYTES + 2) {
                            line.write(piece[i]); // one over the limit, and perhaps a CR
                        }
                    }
                }
                hear(this, line.toByteArray());
            } catch (IOException gone) {
                // It has left by a reset.
            }
            leave(this, "");
            end();
            try {
                writer.join(CLOSE_MILLISECONDS);
                socket.close();
            } catch (IOException | InterruptedException gone) {
                // It is closed.
            }
        }
    }

    /** Greets a newcomer and tells the others, or turns it away. */
    synchronized void welcome(Socket socket) {
        if (guests.size() >= limit) {
            start(() -> turnAway(socket));
            return;
        }
        Guest guest = new Guest(socket, "guest-" + ++names);
        guests.add(guest);
        tell(Set.of(guest), "* welcome, " + guest.name + here());
        tell(others(guest), "* " + guest.name + " joined" + here());
        guest.writer.start();
        start(guest::read);
    }

    synchronized void hear(Guest guest, byte[] bytes) {
        int size = bytes.length - (bytes.length > 0 && bytes[bytes.length - 1] == '\r' ? 1 : 0);
        String text = UNWANTED.matcher(new String(bytes, 0, size, StandardCharsets.UTF_8)).replaceAll("");
        if (!guests.contains(guest)) {
            return;
        }
        if (size > MAX_LINE_BYTES) {
            tell(Set.of(guest), "! line too long: the limit is " + MAX_LINE_BYTES + " bytes");
        } else if (!text.isEmpty()) {
            tell(others(guest), guest.name + ": " + text);
        }
    }

    void tell(Set<Guest> hearers, String text) {
        byte[] bytes = (text + "\n").getBytes(StandardCharsets.UTF_8);
        Set<Guest> slow = new LinkedHashSet<>();
        for (Guest hearer : hearers) {
            if (!hearer.take(bytes)) {
                slow.add(hearer);
            }
        }
        for (Guest guest : slow) {
            try {
                guest.socket.close();
            } catch (IOException gone) {
                // It is closed.
            }
            leave(guest, " (too slow)");
        }
    }

    synchronized void leave(Guest guest, String why) {
        if (guests.remove(guest)) {
            tell(new LinkedHashSet<>(guests), "* " + guest.name + " left" + why + here());
        }
    }

    Set<Guest> others(Guest guest) {
        Set<Guest> others = new LinkedHashSet<>(guests);
        others.remove(guest);
        return others;
    }

    String here() {
        return " (" + guests.size() + " here)";
    }

    void turnAway(Socket socket) {
        try (socket) {
            socket.setSoTimeout(REFUSAL_MILLISECONDS);
            String line = "! the room is full: the limit is " + limit + "\n";
            socket.getOutputStream().write(line.getBytes(StandardCharsets.UTF_8));
            socket.shutdownOutput();
            long end = System.currentTimeMillis() + REFUSAL_MILLISECONDS;
            // To close on unread data would be a reset, and the line would be lost.
            while (socket.getInputStream().read(new byte[1024]) > 0 && System.currentTimeMillis() < end) {}
        } catch (IOException gone) {
            // It did not wait for the answer.
        }
    }

    static void start(Runnable job) {
        Thread thread = new Thread(job);
        thread.setDaemon(true);
        thread.start();
    }

    static void exit(int status, String line) {
        System.err.println(line);
        if (status == 2) {
            System.err.println(USAGE);
        }
        System.exit(status);
    }

    public static void main(String[] words) throws IOException {
        String address = null;
        int limit = 10_000;
        for (int i = 0; i < words.length; i++) {
            if (words[i].equals("-h") || words[i].equals("--help")) {
                System.out.println(USAGE);
                return;
            } else if (words[i].equals("--limit")) {
                String number = ++i < words.length ? words[i] : "nothing";
                if (!number.matches("[0-9]{1,5}") || Integer.parseInt(number) < 1 || Integer.parseInt(number) > 10_000) {
                    exit(2, "--limit must be a number from 1 to 10000, not " + number);
                }
                limit = Integer.parseInt(number);
            } else if (words[i].startsWith("-") || address != null) {
                exit(2, "unknown argument " + words[i]);
            } else {
                address = words[i];
            }
        }
        address = address == null ? "127.0.0.1:12345" : address;
        Matcher parts = Pattern.compile("(?:\\[(.+)\\]|([^:\\[\\]]+)):([0-9]{1,5})").matcher(address);
        if (!parts.matches() || Integer.parseInt(parts.group(3)) > 65535) {
            exit(2, "an address is HOST:PORT, not " + address);
        }
        String host = parts.group(1) != null ? parts.group(1) : parts.group(2);
        ServerSocket listener = new ServerSocket();
        try {
            listener.bind(new InetSocketAddress(InetAddress.getByName(host), Integer.parseInt(parts.group(3))), 4096);
        } catch (IOException error) {
            exit(1, "cannot listen on " + address + ": " + error.getMessage() + "; try another port, such as 127.0.0.1:0");
        }
        String bound = listener.getInetAddress().getHostAddress();
        System.out.println("listening on " + (bound.contains(":") ? "[" + bound + "]" : bound) + ":" + listener.getLocalPort());
        System.out.flush();
        Room room = new Room(limit);
        while (true) {
            try {
                Socket socket = listener.accept();
                socket.setTcpNoDelay(true);
                room.welcome(socket);
            } catch (IOException error) {
                System.err.println("could not accept a client: " + error.getMessage());
            }
        }
    }
}
