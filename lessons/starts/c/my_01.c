/* Step 01: a server that says hello. Contract: lessons/PROTOCOL.md, section 1. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char USAGE[] = "usage: my_01 [ADDRESS]\n"
                            "  ADDRESS  HOST:PORT to listen on, 127.0.0.1:12345 if not given\n";

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

int main(int count, char **args) {
    for (int i = 1; i < count; i++) {
        if (strcmp(args[i], "-h") == 0 || strcmp(args[i], "--help") == 0) {
            fputs(USAGE, stdout);
            return 0;
        }
    }
    for (int i = 1; i < count; i++) {
        if (args[i][0] == '-') refuse("unknown option", args[i]);
        if (i > 1) refuse("unexpected argument", args[i]);
    }
    /* To write to a client that is gone is an error of that write, not the end of the program. */
    signal(SIGPIPE, SIG_IGN);
    int listener = open_listener(count > 1 ? args[1] : "127.0.0.1:12345");
    for (;;) {
        int stream = accept(listener, NULL, NULL);
        if (stream < 0) {
            perror("cannot accept a client");
            continue;
        }
        static const char HELLO[] = "hello from 01_bind_listen\n";
        if (send(stream, HELLO, sizeof HELLO - 1, 0) < 0) perror("a client was lost");
        close(stream);
    }
}
