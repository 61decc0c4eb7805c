//! What most tests of a step build on: the program starts, and answers the first
//! thing that is said to it. Where that fails, ten tests would wait in vain, one
//! after the other. So it is tried once. One test tells how it failed; the others
//! say that they were not tried.
//!
//! Each test asks for the same trial, so the order and the number of test
//! threads do not matter.

use super::peer::MockServer;
use super::story::{Failure, Story};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// Something that most tests of a step need.
pub struct First {
    /// The test whose rule it is.
    test: &'static str,
    /// What the program must do first.
    what: &'static str,
    trial: fn(&Rc<Story>, &str),
}

/// What every test with a server needs.
static SERVERS: LazyLock<HashMap<&str, Vec<First>>> = LazyLock::new(|| {
    let admits = |story: &Rc<Story>, program: &str| {
        let server = story.serve(program, &["serve", "127.0.0.1:0"]);
        server.admit("ann", "ann");
    };
    let what = "answer JOIN with WELCOME";
    HashMap::from([
        (
            "01_bind_listen",
            vec![
                First {
                    test: "the_first_line_printed_says_where_the_server_really_listens",
                    what: "say where it listens",
                    trial: |story, program| drop(story.serve(program, &["127.0.0.1:0"])),
                },
                First {
                    test: "a_client_gets_the_greeting_and_then_the_end_of_the_stream",
                    what: "greet a client",
                    trial: |story, program| {
                        let server = story.serve(program, &["127.0.0.1:0"]);
                        server.connect("ann").expect_line("hello from 01_bind_listen");
                    },
                },
            ],
        ),
        (
            "02_echo_server",
            vec![First {
                test: "bytes_come_back_at_once_without_waiting_for_a_line_end",
                what: "send back at once what it gets",
                trial: |story, program| {
                    let server = story.serve(program, &["127.0.0.1:0"]);
                    let ann = server.connect("ann");
                    ann.send("h");
                    ann.expect_bytes(b"h");
                },
            }],
        ),
        (
            "05_threaded_server",
            vec![First {
                test: "a_guest_is_greeted_by_name_and_the_others_are_told",
                what: "greet a guest",
                trial: |story, program| {
                    let server = story.serve(program, &["127.0.0.1:0"]);
                    server.connect("ann").expect_line("* welcome, guest-1 (1 here)");
                },
            }],
        ),
        (
            "06_message_headers",
            vec![First {
                test: "a_client_that_joins_is_welcomed_and_the_others_are_told",
                what,
                trial: admits,
            }],
        ),
        (
            "07_disconnects",
            vec![First {
                test: "each_disconnect_is_announced_once_with_its_reason",
                what,
                trial: admits,
            }],
        ),
        (
            "08_udp_chat",
            vec![First {
                test: "a_client_joins_only_with_the_cookie_for_its_own_address_and_port",
                what: "answer JOIN",
                trial: |story, program| {
                    let server = story.serve(program, &["serve", "127.0.0.1:0"]);
                    server.enter("ann", "ann");
                },
            }],
        ),
        (
            "09_websocket_chat",
            vec![First {
                test: "the_page_is_at_the_root_and_every_other_request_gets_its_status",
                what: "answer a request for the page",
                trial: |story, program| {
                    let server = story.serve(program, &["127.0.0.1:0"]);
                    server.asked(server.get("/", &[]));
                },
            }],
        ),
    ])
});

/// What every test with a client needs.
static CLIENTS: LazyLock<HashMap<&str, Vec<First>>> = LazyLock::new(|| {
    let joins = |story: &Rc<Story>, program: &str| {
        let mock_server = MockServer::open(story, "127.0.0.1:0");
        let _client = story.joins(program, "ann", &mock_server.address);
        mock_server.admits("ann");
    };
    let what = "connect, and send JOIN";
    HashMap::from([
        (
            "03_client",
            vec![First {
                test: "a_typed_line_is_sent_and_its_answer_is_printed_at_once",
                what: "send what is typed, and print the answer",
                trial: |story, program| {
                    let mock_server = MockServer::open(story, "127.0.0.1:0");
                    let client = story.client(program, &mock_server.address);
                    let server = mock_server.accept();
                    client.types("hello\n");
                    server.expect_line("hello");
                    server.send("answer\n");
                    client.screen.expect_line("answer");
                },
            }],
        ),
        (
            "04_chat_client",
            vec![
                First {
                    test: "lines_from_the_server_are_printed_while_nothing_is_typed",
                    what: "print what comes",
                    trial: |story, program| {
                        let mock_server = MockServer::open(story, "127.0.0.1:0");
                        let client = story.client(program, &mock_server.address);
                        mock_server.accept().send("hello\n");
                        client.screen.expect_line("hello");
                    },
                },
                First {
                    test: "typed_lines_are_sent_without_waiting_for_an_answer",
                    what: "send what is typed",
                    trial: |story, program| {
                        let mock_server = MockServer::open(story, "127.0.0.1:0");
                        let client = story.client(program, &mock_server.address);
                        client.types("hello\n");
                        mock_server.accept().expect_line("hello");
                    },
                },
            ],
        ),
        (
            "06_message_headers",
            vec![First {
                test: "a_client_joins_numbers_what_is_typed_and_says_goodbye",
                what,
                trial: joins,
            }],
        ),
        (
            "07_disconnects",
            vec![First {
                test: "a_client_answers_each_ping_and_takes_the_servers_goodbye",
                what,
                trial: joins,
            }],
        ),
    ])
});

/// What every test with a WebSocket needs, and every one with a room.
pub static UPGRADES: First = First {
    test: "an_upgrade_is_answered_with_its_own_key_and_only_for_the_servers_own_page",
    what: "upgrade a connection to WebSocket",
    trial: |story, program| {
        let server = story.serve(program, &["127.0.0.1:0"]);
        server.upgraded("ann");
    },
};
pub static WELCOMES: First = First {
    test: "the_room_is_the_same_as_in_the_steps_before",
    what: "answer JOIN with WELCOME",
    trial: |story, program| {
        let server = story.serve(program, &["127.0.0.1:0"]);
        server.lets_in("ann", "ann");
    },
};

/// How each trial went, by the test whose rule it is.
type Trials = HashMap<&'static str, Arc<OnceLock<Option<Failure>>>>;
static TRIALS: LazyLock<Mutex<Trials>> = LazyLock::new(Mutex::default);

impl Story {
    /// What a server of this program must do before all else.
    #[track_caller]
    pub(super) fn needs_server(self: &Rc<Story>, program: &str) {
        for first in SERVERS.get(program).into_iter().flatten() {
            self.needs(first, program);
        }
    }

    /// What a client of this program must do before all else.
    #[track_caller]
    pub(super) fn needs_client(self: &Rc<Story>, program: &str) {
        for first in CLIENTS.get(program).into_iter().flatten() {
            self.needs(first, program);
        }
    }

    /// This test makes no sense without that.
    #[track_caller]
    pub(super) fn needs(self: &Rc<Story>, first: &'static First, program: &str) {
        if self.is_trial() {
            return;
        }
        let trial = {
            let mut trials = TRIALS.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(trials.entry(first.test).or_default())
        };
        // The tests that come at the same time wait here.
        if let Some(failure) = trial.get_or_init(|| try_it(first, program)) {
            if self.name() == first.test {
                self.tells(failure);
            }
            self.was_not_tried(&format!(
                "the program must first {}: mend `{}`, which tells how that failed",
                first.what, first.test
            ));
        }
    }
}

fn try_it(first: &First, program: &str) -> Option<Failure> {
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let story = Story::of_trial();
        (first.trial)(&story, program);
    }));
    let failure = tried.err()?.downcast::<Failure>();
    Some(failure.map_or_else(|_| Failure::default(), |failure| *failure))
}
