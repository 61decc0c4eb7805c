//! A picture is described once, on a grid of characters, and drawn twice: as an
//! SVG file, and as plain text for a terminal.
//!
//! A cell of the grid is a character of the text. All positions are cells, `x`
//! to the right and `y` down. Lines begin and end in the middle of a cell, and
//! so do the edges of boxes: a line from one edge to another touches both.

use std::cmp::Ordering;

/// The width and the height of a cell in the SVG file, in its own units.
const CELL: (usize, usize) = (8, 22);
/// The most columns that a picture may have as text.
pub const MAX_COLUMNS: usize = 78;

/// How a part of a picture looks. A plain text shows no difference.
#[derive(Clone, Copy, PartialEq)]
pub enum Look {
    Plain,
    /// A heading.
    Strong,
    /// A remark beside the picture.
    Faint,
    /// What a program prints.
    Code,
    /// What a person types, where a program's output is beside it.
    Typed,
    /// What the picture is about: what waits, is full, or has ended.
    Hot,
    /// What is written on a line.
    Label,
}

impl Look {
    fn class(self) -> &'static str {
        match self {
            Look::Plain => "plain",
            Look::Strong => "strong",
            Look::Faint => "faint",
            Look::Code => "code",
            Look::Typed => "code typed",
            Look::Hot => "hot",
            Look::Label => "label",
        }
    }
}

/// Which ends of a line have a head.
#[derive(Clone, Copy, PartialEq)]
pub enum Heads {
    None,
    End,
    Both,
}

enum Item {
    /// `centered`: `x` is the middle of the text, otherwise its first cell.
    Text {
        x: usize,
        y: usize,
        text: String,
        centered: bool,
        look: Look,
    },
    Box {
        x: usize,
        y: usize,
        width: usize,
        height: usize,
        look: Look,
    },
    /// Its corners. A `slanted` line arrives a little lower than it starts, as
    /// messages do in a picture in which time runs down.
    Line {
        points: Vec<(usize, usize)>,
        heads: Heads,
        slanted: bool,
        look: Look,
    },
}

pub struct Drawing {
    /// One sentence: what can be seen.
    title: String,
    /// What the picture says, for people who can't see it.
    description: String,
    items: Vec<Item>,
}

impl Drawing {
    pub fn new(title: &str, description: &str) -> Drawing {
        Drawing { title: title.into(), description: description.into(), items: Vec::new() }
    }

    /// A text that begins at a cell.
    pub fn text(&mut self, x: usize, y: usize, text: &str, look: Look) {
        self.items.push(Item::Text { x, y, text: text.into(), centered: false, look });
    }

    /// A text with its middle at a cell.
    pub fn centered(&mut self, x: usize, y: usize, text: &str, look: Look) {
        self.items.push(Item::Text { x, y, text: text.into(), centered: true, look });
    }

    /// A box with lines of text in its middle. Its height follows from them.
    pub fn boxed(&mut self, x: usize, y: usize, width: usize, lines: &[&str], look: Look) {
        self.frame(x, y, width, lines.len() + 2, look);
        for (number, line) in lines.iter().enumerate() {
            let look = if look == Look::Hot { Look::Plain } else { look };
            self.centered(x + width / 2, y + 1 + number, line, look);
        }
    }

    /// An empty box.
    pub fn frame(&mut self, x: usize, y: usize, width: usize, height: usize, look: Look) {
        self.items.push(Item::Box { x, y, width, height, look });
    }

    /// An arrow along its corners, with a label in the middle of its first part.
    pub fn arrow(&mut self, points: &[(usize, usize)], label: &str) {
        self.line(points, Heads::End, Look::Plain);
        self.label(points, label);
    }

    /// An arrow with a head at both ends.
    pub fn double_arrow(&mut self, points: &[(usize, usize)], label: &str) {
        self.line(points, Heads::Both, Look::Plain);
        self.label(points, label);
    }

    pub fn line(&mut self, points: &[(usize, usize)], heads: Heads, look: Look) {
        self.items.push(Item::Line { points: points.into(), heads, slanted: false, look });
    }

    /// A message from one column to another, as time runs down.
    pub fn message(&mut self, from: usize, to: usize, y: usize, label: &str, look: Look) {
        let points = vec![(from, y), (to, y)];
        self.label(&points, label);
        self.items.push(Item::Line { points, heads: Heads::End, slanted: true, look });
    }

    /// Takes over the parts of another drawing, below its own.
    pub fn put_below(&mut self, other: Drawing) {
        self.items.splice(0..0, other.items);
    }

    fn label(&mut self, points: &[(usize, usize)], label: &str) {
        if !label.is_empty() {
            let ((x1, y1), (x2, y2)) = (points[0], points[1]);
            self.centered(
                (x1 + x2).div_ceil(2),
                y1.midpoint(y2),
                &format!(" {label} "),
                Look::Label,
            );
        }
    }

    /// The columns and rows that are used.
    fn size(&self) -> (usize, usize) {
        let (mut columns, mut rows) = (0, 0);
        for item in &self.items {
            let (right, bottom) = match item {
                Item::Text { x, y, text, centered, .. } => {
                    (first_cell(*x, text, *centered) + text.chars().count(), *y)
                }
                Item::Box { x, y, width, height, .. } => (x + width, y + height - 1),
                Item::Line { points, .. } => (
                    points.iter().map(|p| p.0).max().unwrap_or(0) + 1,
                    points.iter().map(|p| p.1).max().unwrap_or(0),
                ),
            };
            columns = columns.max(right);
            rows = rows.max(bottom + 1);
        }
        assert!(columns <= MAX_COLUMNS, "\"{}\" has {columns} columns", self.title);
        (columns, rows)
    }

    /// The picture as text.
    pub fn to_text(&self) -> String {
        let (columns, rows) = self.size();
        let mut page = vec![vec![' '; columns]; rows];
        for item in &self.items {
            match item {
                Item::Box { x, y, width, height, .. } => {
                    let (right, bottom) = (x + width - 1, y + height - 1);
                    let inside = &mut page[*y + 1..bottom];
                    for row in inside {
                        row[*x + 1..right].fill(' ');
                    }
                    let corners = [(*x, *y), (right, *y), (right, bottom), (*x, bottom), (*x, *y)];
                    draw(&mut page, &corners);
                }
                Item::Line { points, heads, .. } => draw_line(&mut page, points, *heads),
                Item::Text { .. } => {}
            }
        }
        // What is written is above all lines.
        for item in &self.items {
            if let Item::Text { x, y, text, centered, .. } = item {
                let start = first_cell(*x, text, *centered);
                for (offset, letter) in text.chars().enumerate() {
                    page[*y][start + offset] = letter;
                }
            }
        }
        let mut text = String::new();
        for row in page {
            text += row.iter().collect::<String>().trim_end();
            text.push('\n');
        }
        text
    }

    /// The picture as an SVG file.
    pub fn to_svg(&self) -> String {
        let (columns, rows) = self.size();
        let margin = 16;
        let (width, height) = (columns * CELL.0 + 2 * margin, rows * CELL.1 + 2 * margin);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" role=\"img\" aria-labelledby=\"title desc\">\n\
             <title id=\"title\">{}</title>\n<desc id=\"desc\">{}</desc>\n<style>\n{STYLE}</style>\n\
             <rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n\
             <g transform=\"translate({margin} {margin})\">\n",
            escaped(&self.title),
            escaped(&self.description),
            width - 1,
            height - 1,
        );
        for kind in [svg_shape, svg_text] {
            svg.extend(self.items.iter().filter_map(kind));
        }
        svg + "</g>\n</svg>\n"
    }
}

/// Where a text begins.
fn first_cell(x: usize, text: &str, centered: bool) -> usize {
    if centered { x.saturating_sub(text.chars().count() / 2) } else { x }
}

fn at(page: &[Vec<char>], (x, y): (usize, usize)) -> char {
    page[y][x]
}

fn set(page: &mut [Vec<char>], (x, y): (usize, usize), letter: char) {
    page[y][x] = letter;
}

/// Draws a line, and its heads. It touches what it begins and ends at; a head
/// is one cell before that.
fn draw_line(page: &mut [Vec<char>], points: &[(usize, usize)], heads: Heads) {
    let last = points.len() - 1;
    let edges = (at(page, points[0]), at(page, points[last]));
    draw(page, points);
    for (end, before, edge, has_head) in [
        (points[0], points[1], edges.0, heads == Heads::Both),
        (points[last], points[last - 1], edges.1, heads != Heads::None),
    ] {
        if edge != ' ' {
            set(page, end, edge);
        }
        if has_head {
            let (cell, head) = head(before, end, edge != ' ');
            set(page, cell, head);
        }
    }
}

/// Draws a line through corners.
fn draw(page: &mut [Vec<char>], points: &[(usize, usize)]) {
    for pair in points.windows(2) {
        let ((x1, y1), (x2, y2)) = (pair[0], pair[1]);
        assert!(x1 == x2 || y1 == y2, "lines run along the grid: {pair:?}");
        for x in x1.min(x2)..=x1.max(x2) {
            for y in y1.min(y2)..=y1.max(y2) {
                if at(page, (x, y)) != '+' {
                    set(page, (x, y), if y1 == y2 { '-' } else { '|' });
                }
            }
        }
    }
    let is_closed = points.first() == points.last();
    let corners = if is_closed { points } else { &points[1..points.len() - 1] };
    for corner in corners {
        set(page, *corner, '+');
    }
}

/// The cell of an arrow's head, and the head. `before_edge`: the arrow ends at
/// the edge of something, so its head is one cell before it.
fn head(from: (usize, usize), to: (usize, usize), before_edge: bool) -> ((usize, usize), char) {
    let (x, y) = to;
    let step = usize::from(before_edge);
    match (from.0.cmp(&x), from.1.cmp(&y)) {
        (Ordering::Less, _) => ((x - step, y), '>'),
        (Ordering::Greater, _) => ((x + step, y), '<'),
        (_, Ordering::Less) => ((x, y - step), 'v'),
        _ => ((x, y + step), '^'),
    }
}

/// The middle of a cell in the SVG file.
#[allow(clippy::cast_precision_loss)]
fn middle((x, y): (usize, usize)) -> (f64, f64) {
    let (width, height) = (CELL.0 as f64, CELL.1 as f64);
    ((x as f64 + 0.5) * width, (y as f64 + 0.5) * height)
}

fn svg_shape(item: &Item) -> Option<String> {
    let Item::Box { x, y, width, height, look } = item else { return svg_line(item) };
    let ((left, top), class) = (middle((*x, *y)), look.class());
    let (w, h) = ((width - 1) * CELL.0, (height - 1) * CELL.1);
    Some(format!(
        "<rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"{w}\" height=\"{h}\" rx=\"4\"/>\n"
    ))
}

fn svg_line(item: &Item) -> Option<String> {
    let Item::Line { points, heads, slanted, look } = item else { return None };
    let class = look.class();
    let mut points: Vec<(f64, f64)> = points.iter().map(|point| middle(*point)).collect();
    let last = points.len() - 1;
    if *slanted {
        points[0].1 -= 4.0;
        points[last].1 += 4.0;
    }
    let corners: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
    let mut svg = format!("<polyline class=\"{class}\" points=\"{}\"/>\n", corners.join(" "));
    if *heads != Heads::None {
        svg += &svg_head(points[last - 1], points[last], class);
    }
    if *heads == Heads::Both {
        svg += &svg_head(points[1], points[0], class);
    }
    Some(svg)
}

/// A triangle with its tip at `to`.
fn svg_head(from: (f64, f64), to: (f64, f64), class: &str) -> String {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let angle = dy.atan2(dx).to_degrees();
    format!(
        "<path class=\"{class}\" d=\"M0 0 L-9 -4 L-9 4 Z\" transform=\"translate({} {}) rotate({angle:.1})\"/>\n",
        to.0, to.1
    )
}

fn svg_text(item: &Item) -> Option<String> {
    let Item::Text { x, y, text, centered, look } = item else { return None };
    let (x, y) = middle((*x, *y));
    // A text that is not centered begins at the left edge of its cell.
    let (x, anchor) = if *centered { (x, " text-anchor=\"middle\"") } else { (x - 4.0, "") };
    let (y, class) = (y + 4.5, look.class());
    let text = escaped(if *centered { text.trim() } else { text });
    Some(format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\"{anchor}>{text}</text>\n"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The page has a colour of its own, so a picture can be read on every page.
const STYLE: &str = "\
svg { --page: #ffffff; --edge: #d3d9e1; --ink: #1b2430; --faint: #566171; --line: #4b5868;
  --fill: #f1f4f8; --hot: #a34705; --warm: #fdebd9 }
@media (prefers-color-scheme: dark) {
  svg { --page: #151a21; --edge: #39434f; --ink: #e7ebf1; --faint: #a3afbe; --line: #9aa7b8;
    --fill: #212933; --hot: #f0a868; --warm: #40291a }
}
.page { fill: var(--page); stroke: var(--edge) }
rect { fill: var(--fill); stroke: var(--line); stroke-width: 1.2 }
rect.faint { fill: var(--page); stroke-dasharray: 4 4 }
rect.hot { fill: var(--warm); stroke: var(--hot) }
polyline { fill: none; stroke: var(--line); stroke-width: 1.4 }
polyline.faint { stroke-dasharray: 4 4 }
polyline.hot { stroke: var(--hot) }
path { fill: var(--line) }
path.hot { fill: var(--hot) }
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif;
  fill: var(--ink); paint-order: stroke; stroke: var(--page); stroke-width: 0; white-space: pre }
text.label { stroke-width: 10px; stroke-linejoin: round }
text.strong { font-weight: 600 }
text.faint { fill: var(--faint) }
text.hot { fill: var(--hot); font-weight: 600 }
text.typed { font-weight: 700 }
text.code { font-size: 12.5px; font-family: ui-monospace, Consolas, 'DejaVu Sans Mono', monospace }
";
