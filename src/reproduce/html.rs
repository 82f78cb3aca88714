//! The whole report as one page that needs nothing beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::table::Table;
use crate::Result;
use crate::files::{read_at_most, read_text_at_most};

/// No picture has more bytes.
const LARGEST: u64 = 1 << 28;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#282c34;background:#fff;max-width:1180px;margin:32px auto;padding:0 24px}\
h1{font-size:26px}h2{font-size:19px;margin-top:40px}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:5px 12px;border-bottom:1px solid #e3e5e8;text-align:right;white-space:nowrap}th{border-bottom-color:#8a8f98;font-weight:600}\
th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}ul{color:#555b66;max-width:900px}img,svg{max-width:100%;height:auto}\
figcaption{color:#555b66}";

/// The page: headings, tables, then figures (SVG and PNG) each with what it shows.
///
/// # Errors
/// [`Data`](crate::Error::Data) if a figure cannot be read.
pub fn page(title: &str, about: &[String], tables: &[Table], figures: &[(String, PathBuf)]) -> Result<String> {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style></head>\n<body>\n\
         <h1>{0}</h1>\n",
        escaped(title)
    );
    // Writing to a string cannot fail.
    for line in about {
        let _ = writeln!(page, "<p>{}</p>", escaped(line));
    }
    for table in tables {
        let row = |tag: &str, cells: &mut dyn Iterator<Item = String>| {
            let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(&cell))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        let head = row("th", &mut table.columns.iter().cloned());
        let rows: String =
            table.rows.iter().map(|cells| row("td", &mut cells.iter().map(|cell| cell.text()))).collect();
        let notes: String = table.notes.iter().map(|note| format!("<li>{}</li>", escaped(note))).collect();
        let notes = if notes.is_empty() { notes } else { format!("<ul>{notes}</ul>\n") };
        let title = escaped(&table.title);
        let _ = writeln!(page, "<h2>{title}</h2>\n<div class=\"wide\"><table>\n{head}{rows}</table></div>\n{notes}");
    }
    for (caption, path) in figures {
        let caption = escaped(caption);
        let _ = writeln!(page, "<h2>{caption}</h2>\n<figure>{}</figure>", picture(path, &caption)?);
    }
    page += "</body></html>\n";
    Ok(page)
}

fn picture(path: &Path, caption: &str) -> Result<String> {
    if path.extension().is_some_and(|kind| kind == "svg") {
        return read_text_at_most(path, LARGEST);
    }
    let data = STANDARD.encode(read_at_most(path, LARGEST)?);
    Ok(format!("<img alt=\"{caption}\" src=\"data:image/png;base64,{data}\">"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
