//! What the ten programs of the course share, and in which step it comes up.
//!
//! | module | in a sentence | step |
//! | --- | --- | --- |
//! | [`cli`] | arguments, output, errors of one line | 01 |
//! | [`tcp`] | listening, accepting, connecting | 01, 03 |
//! | [`mod@line`] | a bounded line from a stream; cleaning text | 03, 05 |
//! | [`delivery`] | sending to many peers without waiting for one | 05 |
//!
//! The programs are in `examples/`, each with a lesson of the same name in
//! `lessons/`. An idea is written out in full where it is taught: what only
//! one program needs stands there, and what two need stands here.

pub mod cli;
pub mod delivery;
pub mod line;
pub mod message;
pub mod tcp;
