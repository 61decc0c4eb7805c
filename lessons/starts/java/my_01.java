// Step 01: a server that says hello. Contract: lessons/PROTOCOL.md, section 1.

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;

class My01 {
    static final String USAGE = """
        usage: My01 [ADDRESS]
          ADDRESS  HOST:PORT to listen on, 127.0.0.1:12345 if not given""";

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

    public static void main(String[] args) {
        List<String> words = Arrays.asList(args);
        if (words.contains("-h") || words.contains("--help")) {
            System.out.println(USAGE);
            return;
        }
        for (String word : words) {
            if (word.startsWith("-")) {
                refuse("unknown option " + word);
            }
        }
        if (args.length > 1) {
            refuse("unexpected argument " + args[1]);
        }
        ServerSocket listener = listen(args.length > 0 ? args[0] : "127.0.0.1:12345");
        byte[] hello = "hello from 01_bind_listen\n".getBytes(StandardCharsets.UTF_8);
        while (true) {
            // At the closing brace the stream is closed.
            try (Socket stream = listener.accept()) {
                stream.getOutputStream().write(hello);
            } catch (IOException error) {
                // This client may be gone already. That must not end the server.
                System.err.println("a client was lost: " + error.getMessage());
            }
        }
    }
}
