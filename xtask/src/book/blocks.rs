//! What is in a page of Markdown: fenced code blocks, the commands in them, commands in the text, and links.
//!
//! Only as much of Markdown as this project's pages use.

/// A fenced code block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of the page that its first line of code is, counted from 1.
    pub line: usize,
    /// What stands behind the fence: `sh`, `rust,ignore`.
    pub info: String,
    /// The code.
    pub lines: Vec<String>,
}

impl Block {
    /// Whether one of the words behind the fence is this one.
    pub fn is(&self, word: &str) -> bool {
        self.info.split(',').any(|part| part.trim() == word)
    }
}

/// The code blocks of a page.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if open => open = false,
            Some(info) => {
                open = true;
                blocks.push(Block { line: index + 2, info: info.trim().to_owned(), lines: Vec::new() });
            }
            None if open => blocks.last_mut().into_iter().for_each(|block| block.lines.push(line.to_owned())),
            None => {}
        }
    }
    blocks
}

/// The lines of a page outside of code blocks, with their numbers from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut open = false;
    let outside = text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        open ^= fence;
        !open && !fence
    });
    outside.map(|(index, line)| (index + 1, line)).collect()
}

/// Targets of links, with the lines they are in.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let in_line = |(line, mut rest): (usize, &str)| {
        let mut found = Vec::new();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, behind)) = after.split_once(')') else { break };
            found.push((line, target.to_owned()));
            rest = behind;
        }
        found
    };
    prose(text).into_iter().flat_map(in_line).collect()
}

/// Code in the text, between single back-ticks, with the lines it is in.
pub fn inline_code(text: &str) -> Vec<(usize, String)> {
    let in_line = |(line, text): (usize, &str)| {
        let odd = text.split('`').skip(1).step_by(2);
        odd.map(|code| (line, code.to_owned())).collect::<Vec<_>>()
    };
    prose(text).into_iter().flat_map(in_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "a [b](c.md) `d e` [f](g#h)\n```sh,hyper-v\n[x](y) `z`\n```\n`i`\n   ```rust\nj\n   ```\n";

    #[test]
    fn blocks_links_and_inline_code_are_told_apart() {
        let found = blocks(PAGE);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].line, found[0].lines.clone()), (3, vec!["[x](y) `z`".to_owned()]));
        assert!(found[0].is("sh") && found[0].is("hyper-v") && !found[0].is("rust"));
        assert_eq!((found[1].line, found[1].info.as_str()), (7, "rust"));
        assert_eq!(links(PAGE), [(1, "c.md".to_owned()), (1, "g#h".to_owned())]);
        assert_eq!(inline_code(PAGE), [(1, "d e".to_owned()), (5, "i".to_owned())]);
    }
}
