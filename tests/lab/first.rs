//! What most tests of a step build on: the program starts, and answers the first
//! thing that is said to it. Where that fails, ten tests would wait in vain, one
//! after the other. So it is tried once. One test tells how it failed; the others
//! say that they were not tried.
//!
//! Each test asks for the same trial, so the order and the number of test
//! threads do not matter.

use super::peer::MockServer;
use super::program::Program;
use super::secure::{ANN, Folder};
use super::story::{Failure, Story};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

type Trial = fn(&Rc<Story>, &str);

/// Something that most tests of a step need: the test whose rule it is, what the
/// program must do first, and how that is tried.
pub struct Prerequisite(&'static str, &'static str, Trial);

const ADMITS: &str = "answer JOIN with WELCOME";
const JOINS: &str = "connect, and send JOIN";

/// What every test with a server of this program needs.
fn of_server(program: &str) -> &'static [Prerequisite] {
    const STARTS: Trial = |story, program| drop(story.serve(program, &["127.0.0.1:0"]));
    const GREETS: Trial = |story, program| {
        let server = story.serve(program, &["127.0.0.1:0"]);
        server.connect("ann").expect_line("hello from 01_bind_listen");
    };
    const ECHOES: Trial = |story, program| {
        let ann = story.serve(program, &["127.0.0.1:0"]).connect("ann");
        ann.send("h");
        ann.expect_bytes(b"h");
    };
    const WELCOMES: Trial = |story, program| {
        let server = story.serve(program, &["127.0.0.1:0"]);
        server.connect("ann").expect_line("* welcome, guest-1 (1 here)");
    };
    const LETS_IN: Trial = |story, program| {
        drop(story.serve(program, &["serve", "127.0.0.1:0"]).admit("ann", "ann"));
    };
    const LETS_IN_BY_UDP: Trial = |story, program| {
        drop(story.serve(program, &["serve", "127.0.0.1:0"]).enter("ann", "ann"));
    };
    const OPENS_BOTH: Trial = |story, program| {
        let folder = Folder::new();
        let accounts = folder.accounts(&[&ANN]);
        let usual = ["serve", "127.0.0.1:0", "--web", "127.0.0.1:0", "--accounts", &accounts];
        story.serve(program, &usual).screen.any_line("page on http://ADDRESS/");
    };
    const SHOWS_PAGE: Trial = |story, program| {
        let server = story.serve(program, &["127.0.0.1:0"]);
        server.asked(server.get("/", &[]));
    };
    match program {
        "01_bind_listen" => &[
            Prerequisite(
                "the_first_line_printed_says_where_the_server_really_listens",
                "say where it listens",
                STARTS,
            ),
            Prerequisite(
                "a_client_gets_the_greeting_and_then_the_end_of_the_stream",
                "greet a client",
                GREETS,
            ),
        ],
        "02_echo_server" => &[Prerequisite(
            "bytes_come_back_at_once_without_waiting_for_a_line_end",
            "send back at once what it gets",
            ECHOES,
        )],
        "05_threaded_server" => &[Prerequisite(
            "a_guest_is_greeted_by_name_and_the_others_are_told",
            "greet a guest",
            WELCOMES,
        )],
        "06_message_headers" => &[Prerequisite(
            "a_client_that_joins_is_welcomed_and_the_others_are_told",
            ADMITS,
            LETS_IN,
        )],
        "07_disconnects" => {
            &[Prerequisite("each_disconnect_is_announced_once_with_its_reason", ADMITS, LETS_IN)]
        }
        "08_udp_chat" => &[Prerequisite(
            "a_client_joins_only_with_the_cookie_for_its_own_address_and_port",
            "answer JOIN",
            LETS_IN_BY_UDP,
        )],
        "09_websocket_chat" => &[Prerequisite(
            "the_page_is_at_the_root_and_every_other_request_gets_its_status",
            "answer a request for the page",
            SHOWS_PAGE,
        )],
        "10_secure_chat" => &[Prerequisite(
            "one_room_has_two_listeners_and_only_this_machine_reaches_them",
            "open both listeners, and print `page on http://ADDRESS/`",
            OPENS_BOTH,
        )],
        _ => &[],
    }
}

/// What every test with a client of this program needs.
fn of_client(program: &str) -> &'static [Prerequisite] {
    const ANSWERED: Trial = |story, program| {
        let mock_server = MockServer::open(story, "127.0.0.1:0");
        let client = story.client(program, &mock_server.address);
        let server = mock_server.accept();
        client.types("hello\n");
        server.expect_line("hello");
        server.send("answer\n");
        client.screen.expect_line("answer");
    };
    const PRINTS: Trial = |story, program| {
        let mock_server = MockServer::open(story, "127.0.0.1:0");
        let client = story.client(program, &mock_server.address);
        mock_server.accept().send("hello\n");
        client.screen.expect_line("hello");
    };
    const SENDS: Trial = |story, program| {
        let mock_server = MockServer::open(story, "127.0.0.1:0");
        let client = story.client(program, &mock_server.address);
        client.types("hello\n");
        mock_server.accept().expect_line("hello");
    };
    const ASKS: Trial = |story, program| {
        let mock_server = MockServer::open(story, "127.0.0.1:0");
        let _client = story.joins(program, "ann", &mock_server.address);
        mock_server.admits("ann");
    };
    match program {
        "03_client" => &[Prerequisite(
            "a_typed_line_is_sent_and_its_answer_is_printed_at_once",
            "send what is typed, and print the answer",
            ANSWERED,
        )],
        "04_chat_client" => &[
            Prerequisite(
                "lines_from_the_server_are_printed_while_nothing_is_typed",
                "print what comes",
                PRINTS,
            ),
            Prerequisite(
                "typed_lines_are_sent_without_waiting_for_an_answer",
                "send what is typed",
                SENDS,
            ),
        ],
        "06_message_headers" => {
            &[Prerequisite("a_client_joins_numbers_what_is_typed_and_says_goodbye", JOINS, ASKS)]
        }
        "07_disconnects" => {
            &[Prerequisite("a_client_answers_each_ping_and_takes_the_servers_goodbye", JOINS, ASKS)]
        }
        _ => &[],
    }
}

/// What every test with a WebSocket needs, and every one with a room.
pub static UPGRADES: Prerequisite = Prerequisite(
    "an_upgrade_is_answered_with_its_own_key_and_only_for_the_servers_own_page",
    "upgrade a connection to WebSocket",
    |story, program| drop(story.serve(program, &["127.0.0.1:0"]).visit("ann")),
);
static WELCOMES: Prerequisite =
    Prerequisite("the_room_is_the_same_as_in_the_steps_before", ADMITS, |story, program| {
        drop(story.serve(program, &["127.0.0.1:0"]).admit("ann", "ann"));
    });

/// How each trial went, by the test whose rule it is.
type Trials = HashMap<&'static str, Arc<OnceLock<Option<Failure>>>>;
static TRIALS: LazyLock<Mutex<Trials>> = LazyLock::new(Mutex::default);

impl Program {
    /// What a room of messages must do before all else.
    #[track_caller]
    pub(super) fn needs_a_room(&self) {
        if self.step == "09_websocket_chat" {
            // In this order: without an upgrade nobody can be let in.
            self.story.needs(&UPGRADES, &self.step);
            self.story.needs(&WELCOMES, &self.step);
        }
    }
}

impl Story {
    /// What a server of this program must do before all else.
    #[track_caller]
    pub(super) fn needs_server(self: &Rc<Story>, program: &str) {
        for first in of_server(program) {
            self.needs(first, program);
        }
    }

    /// What a client of this program must do before all else.
    #[track_caller]
    pub(super) fn needs_client(self: &Rc<Story>, program: &str) {
        for first in of_client(program) {
            self.needs(first, program);
        }
    }

    /// This test makes no sense without that.
    #[track_caller]
    pub(super) fn needs(self: &Rc<Story>, first: &'static Prerequisite, program: &str) {
        if self.is_trial() {
            return;
        }
        let Prerequisite(test, what, trial) = first;
        let tried = {
            let mut trials = TRIALS.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(trials.entry(test).or_default())
        };
        // The tests that come at the same time wait here.
        if let Some(failure) = tried.get_or_init(|| fails(*trial, program)) {
            if self.name() == *test {
                self.tells(failure);
            }
            self.was_not_tried(&format!(
                "the program must first {what}: mend `{test}`, which tells how that failed"
            ));
        }
    }
}

/// How a trial fails, if it does.
fn fails(trial: Trial, program: &str) -> Option<Failure> {
    let tried = catch_unwind(AssertUnwindSafe(|| trial(&Story::of_trial(), program)));
    let failure = tried.err()?.downcast::<Failure>();
    Some(failure.map_or_else(|_| Failure::default(), |failure| *failure))
}
