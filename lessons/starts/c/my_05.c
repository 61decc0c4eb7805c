/* Step 05: a chat room for many, to be finished.
   Contract: lessons/PROTOCOL.md, section 2, "05, the room".
   One thread asks the system which sockets are ready (poll), and waits for no single client. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char USAGE[] = "usage: my_05 [ADDRESS] [--limit N]\n"
                            "  ADDRESS    HOST:PORT to listen on, 127.0.0.1:12345 if not given\n"
                            "  --limit N  the most guests at once, 1 to 10000, 10000 if not given\n";

/* What the server knows of a guest. guests[i] belongs to places[i + 1]. */
struct guest {
    int number;
    /* TODO 5. What has arrived of a line that has no LF yet: at most 4096 bytes.
       TODO 6. What waits for this guest: at most 1 MiB. */
};

static struct pollfd places[10001];
static struct guest guests[10000];
static int here = 0;

/* What can't be understood: a line that names it, the usage, and exit status 2. */
static void refuse(const char *why, const char *what) {
    fprintf(stderr, "%s: %s\n\n%s", why, what, USAGE);
    exit(2);
}

/* What fails later: one line, and exit status 1. */
static void fail(const char *address, const char *why) {
    fprintf(stderr,
            "cannot listen on %s: %s. Who has the port: ss -tlnp. Or choose another port.\n",
            address, why);
    exit(1);
}

/* HOST:PORT in two. The port follows the last colon, because an IPv6 host has colons, too. */
static void split_address(const char *address, char host[256], char port[6]) {
    static const char WHY[] = "an address is HOST:PORT, such as 127.0.0.1:12345, not this";
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address || colon - address > 255) refuse(WHY, address);
    size_t digits = strspn(colon + 1, "0123456789");
    if (digits == 0 || digits > 5 || colon[1 + digits] != '\0' || atoi(colon + 1) > 65535)
        refuse(WHY, address);
    memcpy(port, colon + 1, digits + 1);
    const char *first = address;
    size_t length = (size_t)(colon - address);
    if (length > 2 && first[0] == '[' && first[length - 1] == ']') {
        first += 1;
        length -= 2;
    }
    memcpy(host, first, length);
    host[length] = '\0';
}

/* Binds and listens, and prints where. */
static int open_listener(const char *address) {
    char host[256], port[6];
    split_address(address, host, port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0) fail(address, gai_strerror(error));
    int listener = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
    if (listener < 0) fail(address, strerror(errno));
    /* So the port can be had again at once after a restart. */
    int yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, found->ai_addr, found->ai_addrlen) < 0) fail(address, strerror(errno));
    if (listen(listener, SOMAXCONN) < 0) fail(address, strerror(errno));
    freeaddrinfo(found);

    struct sockaddr_storage place;
    socklen_t size = sizeof place;
    if (getsockname(listener, (struct sockaddr *)&place, &size) < 0 ||
        getnameinfo((struct sockaddr *)&place, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        fail(address, "the system does not say where it listens");
    printf(strchr(host, ':') ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host, port);
    /* Output to a pipe is kept back otherwise. */
    fflush(stdout);
    return listener;
}

/* A newcomer takes the next place. */
static void arrive(int stream, int limit) {
    static int last_number = 0;
    if (here == limit) {
        /* TODO 1. Tell it that the room is full. It uses up no number. */
        close(stream);
        return;
    }
    fcntl(stream, F_SETFL, O_NONBLOCK);
    guests[here] = (struct guest){.number = ++last_number};
    places[++here] = (struct pollfd){.fd = stream, .events = POLLIN};
    /* TODO 2. Greet it, and tell the others. */
}

/* A guest has sent something, or is gone. Whether it is still here. */
static int hear(int i) {
    char bytes[65536];
    ssize_t count = recv(places[i + 1].fd, bytes, sizeof bytes, 0);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    /* TODO 3. Each line, up to its LF, goes to everybody else as `guest-N: the line`, cleaned of
       what may not pass. A line of over 4096 bytes is answered once, and thrown away. */
    return count > 0;
}

/* A guest leaves its place, and the last one moves there. */
static void leave(int i) {
    close(places[i + 1].fd);
    guests[i] = guests[here - 1];
    places[i + 1] = places[here];
    here -= 1;
    /* TODO 4. Tell the others. */
}

int main(int count, char **args) {
    for (int i = 1; i < count; i++) {
        if (strcmp(args[i], "-h") == 0 || strcmp(args[i], "--help") == 0) {
            fputs(USAGE, stdout);
            return 0;
        }
    }
    const char *address = NULL;
    int limit = 10000;
    for (int i = 1; i < count; i++) {
        if (strcmp(args[i], "--limit") == 0) {
            if (++i == count) refuse("the number is missing after", "--limit");
            size_t digits = strspn(args[i], "0123456789");
            limit = atoi(args[i]);
            if (digits == 0 || digits > 5 || args[i][digits] != '\0' || limit < 1 || limit > 10000)
                refuse("--limit must be a number from 1 to 10000, not this", args[i]);
        } else if (args[i][0] == '-') {
            refuse("unknown option", args[i]);
        } else if (address != NULL) {
            refuse("unexpected argument", args[i]);
        } else {
            address = args[i];
        }
    }
    /* To write to a client that is gone is an error of that write, not the end of the program. */
    signal(SIGPIPE, SIG_IGN);
    int listener = open_listener(address ? address : "127.0.0.1:12345");
    places[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (;;) {
        if (poll(places, (nfds_t)here + 1, -1) < 0) continue;
        /* From the last to the first: a guest that leaves is replaced by one that was looked at. */
        for (int i = here - 1; i >= 0; i--) {
            if (places[i + 1].revents != 0 && !hear(i)) leave(i);
            /* TODO 6. POLLOUT: what waits for this guest can go on. */
        }
        if (places[0].revents != 0) {
            int stream = accept(listener, NULL, NULL);
            if (stream >= 0) arrive(stream, limit);
        }
    }
}
