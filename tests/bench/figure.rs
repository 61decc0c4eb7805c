//! The picture of lesson 5: how many deliveries, and how much memory, over the
//! number of clients.

use super::{LINE_BYTES, Language, NAMED_BYTES, Room, throughput};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const CLIENTS: [usize; 5] = [3, 10, 30, 100, 300];
const SERIES: [&str; 3] = ["05", "one write a line", "locked list"];

/// Where the two diagrams are, in the units of the picture: left, top, width
/// and height of both.
const PLACES: [f64; 2] = [72.0, 416.0];
const TOP: f64 = 64.0;
const SIZE: [f64; 2] = [232.0, 200.0];

/// Measures, and writes `lessons/figures/05_measured.svg` and its text.
pub fn draw(time: Duration) -> io::Result<()> {
    let folder = std::env::temp_dir();
    let small = folder.join(format!("socket-chat-small-room-{}", std::process::id()));
    let built = Command::new("rustc")
        .args(["--edition=2024", "-O", "lessons/05_small_room.rs", "-o"])
        .arg(&small)
        .status()?;
    assert!(built.success(), "the small room of lesson 5 is not built");
    let mut deliveries = [[0.0; CLIENTS.len()]; 3];
    let mut memory = deliveries;
    for (at, clients) in CLIENTS.into_iter().enumerate() {
        for series in 0..3 {
            let mut rates: Vec<f64> = Vec::new();
            let mut peaks: Vec<f64> = Vec::new();
            for _ in 0..3 {
                let room = match series {
                    0 => Room::start("05_threaded_server", &[])?,
                    1 => Room::run(Command::new(&small).arg("127.0.0.1:0"))?,
                    _ => Room::run(Command::new(std::env::current_exe()?).arg("--locked-list"))?,
                };
                let bytes = if series == 2 { LINE_BYTES } else { NAMED_BYTES };
                rates.push(throughput(room.address, clients, time, Language::Lines, bytes)?);
                peaks.push(peak(room.child.id())?);
            }
            rates.sort_by(f64::total_cmp);
            peaks.sort_by(f64::total_cmp);
            (deliveries[series][at], memory[series][at]) = (rates[1], peaks[1]);
        }
    }
    let _ = fs::remove_file(small);
    let text = text(&deliveries, &memory);
    print!("{text}");
    fs::write(Path::new("lessons/figures/05_measured.txt"), &text)?;
    fs::write(Path::new("lessons/figures/05_measured.svg"), svg(&deliveries, &memory))
}

/// The most memory that a process has had, in MiB (`VmHWM` in proc(5)).
fn peak(process: u32) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("");
    let number = line.trim().trim_end_matches(" kB").parse::<f64>();
    Ok(number.map_err(io::Error::other)? / 1024.0)
}

type Values = [[f64; CLIENTS.len()]; 3];

fn text(deliveries: &Values, memory: &Values) -> String {
    let mut text = String::from("             million deliveries/s              memory in MiB\n");
    let _ = writeln!(
        text,
        "{:>8} {:>8} {:>9} {:>9}   {:>8} {:>9} {:>9}",
        "clients", "05", "one write", "locked", "05", "one write", "locked"
    );
    let _ = writeln!(
        text,
        "{:>8} {:>8} {:>9} {:>9}   {:>8} {:>9} {:>9}",
        "", "", "a line", "list", "", "a line", "list"
    );
    for (at, clients) in CLIENTS.iter().enumerate() {
        let rates = deliveries.map(|values| values[at] / 1e6);
        let peaks = memory.map(|values| values[at]);
        let _ = writeln!(
            text,
            "{clients:>8} {:>8.2} {:>9.2} {:>9.2}   {:>8.1} {:>9.1} {:>9.1}",
            rates[0], rates[1], rates[2], peaks[0], peaks[1], peaks[2]
        );
    }
    text
}

const STYLE: &str = "\
svg { --page: #ffffff; --edge: #d3d9e1; --ink: #1b2430; --faint: #566171; --a: #a34705;
  --b: #1f5fa8; --c: #4b5868 }
@media (prefers-color-scheme: dark) {
  svg { --page: #151a21; --edge: #39434f; --ink: #e7ebf1; --faint: #a3afbe; --a: #f0a868;
    --b: #7fb3ee; --c: #9aa7b8 }
}
.page { fill: var(--page); stroke: var(--edge) }
.grid { stroke: var(--edge) }
polyline { fill: none; stroke-width: 2 }
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif;
  fill: var(--ink) }
text.strong { font-weight: 600 }
text.faint { fill: var(--faint) }
polyline.s0 { stroke: var(--a) } polyline.s1 { stroke: var(--b); stroke-dasharray: 7 4 }
polyline.s2 { stroke: var(--c); stroke-dasharray: 2 3 }
";

fn svg(deliveries: &Values, memory: &Values) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 688 352\" width=\"688\" height=\"352\" role=\"img\" aria-labelledby=\"title desc\">\n\
         <title id=\"title\">Deliveries and memory over the number of clients</title>\n\
         <desc id=\"desc\">Measured by cargo bench. The room of step 05 is beside one that makes one write for each line, and beside a list of streams behind a lock. The numbers are in the text of this picture.</desc>\n\
         <style>\n{STYLE}</style>\n\
         <rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"687\" height=\"351\" rx=\"8\"/>\n"
    );
    let all = |values: &Values| values.iter().flatten().copied().collect::<Vec<_>>();
    for (place, name, values, unit) in [
        (PLACES[0], "deliveries a second", deliveries, 1e6),
        (PLACES[1], "memory of the server", memory, 1.0),
    ] {
        let all = all(values);
        let low = all.iter().copied().fold(f64::MAX, f64::min).log10().floor();
        let high = all.iter().copied().fold(0.0, f64::max).log10().ceil();
        let x = |clients: usize| {
            let position = |n: usize| (n as f64).log10();
            let all = position(CLIENTS[CLIENTS.len() - 1]) - position(CLIENTS[0]);
            place + SIZE[0] * (position(clients) - position(CLIENTS[0])) / all
        };
        let y = |value: f64| TOP + SIZE[1] * (high - value.log10()) / (high - low);
        let _ = writeln!(
            svg,
            "<text class=\"strong\" x=\"{place}\" y=\"{}\">{name}</text>",
            TOP - 28.0
        );
        let mut power = low;
        while power <= high {
            let (value, right) = (10_f64.powf(power), place + SIZE[0]);
            let label =
                if unit > 1.0 { format!("{} M", value / unit) } else { format!("{value} MiB") };
            let height = y(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{place}\" y1=\"{height:.1}\" x2=\"{right}\" y2=\"{height:.1}\"/><text class=\"faint\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                place - 8.0,
                height + 4.0
            );
            power += 1.0;
        }
        for clients in CLIENTS {
            let _ = writeln!(
                svg,
                "<text class=\"faint\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{clients}</text>",
                x(clients),
                TOP + SIZE[1] + 20.0
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"faint\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">clients</text>",
            place + SIZE[0] / 2.0,
            TOP + SIZE[1] + 38.0
        );
        for (series, values) in values.iter().enumerate() {
            let points: Vec<String> = CLIENTS
                .iter()
                .zip(values)
                .map(|(clients, value)| format!("{:.1},{:.1}", x(*clients), y(*value)))
                .collect();
            let _ =
                writeln!(svg, "<polyline class=\"s{series}\" points=\"{}\"/>", points.join(" "));
        }
    }
    let mut left = PLACES[0];
    for (series, name) in SERIES.into_iter().enumerate() {
        let end = left + 32.0;
        let _ = writeln!(
            svg,
            "<polyline class=\"s{series}\" points=\"{left},328 {end},328\"/><text x=\"{}\" y=\"332\">{name}</text>",
            end + 8.0
        );
        left += 170.0;
    }
    svg + "</svg>\n"
}
