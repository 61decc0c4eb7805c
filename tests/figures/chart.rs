//! A space-time diagram: a line for each program, from the top to the bottom,
//! and an arrow for each thing that crosses from one to another.

use crate::draw::{Drawing, Heads, Look};

pub struct Chart {
    pub drawing: Drawing,
    /// The names of the programs, and the columns of their lines.
    programs: Vec<(&'static str, usize)>,
    /// The next free row.
    pub row: usize,
}

impl Chart {
    pub fn new(drawing: Drawing, programs: &[(&'static str, usize)]) -> Chart {
        let mut chart = Chart { drawing, programs: programs.to_vec(), row: 2 };
        for (name, column) in programs {
            chart.drawing.centered(*column, 0, name, Look::Strong);
        }
        chart
    }

    pub fn column(&self, name: &str) -> usize {
        let known = self.programs.iter().find(|(known, _)| *known == name);
        known.unwrap_or_else(|| panic!("the chart has no {name}")).1
    }

    /// A message between two programs, in a row of its own.
    pub fn message(&mut self, from: &str, to: &str, label: &str, look: Look) {
        let (from, to) = (self.column(from), self.column(to));
        self.drawing.message(from, to, self.row, label, look);
        self.row += 1;
    }

    /// A remark to the right of all lines, beside the last message.
    pub fn remark(&mut self, text: &str) {
        let right = self.programs.iter().map(|(_, column)| *column).max().unwrap_or(0);
        self.drawing.text(right + 3, self.row - 1, text, Look::Faint);
    }

    /// A text on the line of one program: what it is in from now on.
    pub fn state(&mut self, name: &str, text: &str, look: Look) {
        let column = self.column(name);
        let width = (text.chars().count() + 4) | 1;
        let left = column.saturating_sub(width / 2);
        self.drawing.frame(left, self.row, width, 3, look);
        let look = if look == Look::Hot { look } else { Look::Plain };
        self.drawing.centered(column, self.row + 1, text, look);
    }

    /// Draws the lines of the programs down to here.
    pub fn finish(mut self) -> Drawing {
        let mut lines = Drawing::new("", "");
        for (_, column) in &self.programs {
            lines.line(&[(*column, 1), (*column, self.row)], Heads::None, Look::Plain);
        }
        self.drawing.put_below(lines);
        self.drawing
    }
}
