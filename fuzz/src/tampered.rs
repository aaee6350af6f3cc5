//! Changes to signed bytes: single bytes here and there, or elements of DER.

use crate::der::{Content, Node};
use crate::input::Input;

/// `bytes` after a few changes in place, insertions and deletions of a byte each, and perhaps cut.
pub fn bytes(input: &mut Input<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..=input.below(4) {
        let (how, byte) = (input.below(5), input.byte());
        let at = usize::try_from(input.short()).unwrap_or_default();
        let Some(at) = at.checked_rem(changed.len()) else { break };
        match how {
            0 => changed[at] = byte,
            1 => changed[at] ^= 1 << (byte & 7),
            2 => changed.insert(at, byte),
            3 => drop(changed.remove(at)),
            _ if byte > 0xf0 => changed.truncate(at),
            _ => changed[at] = changed[at].wrapping_add(byte & 3),
        }
    }
    changed
}

/// The DER element `bytes` after a few changes to the elements in it: removed, doubled, exchanged, another tag, other bytes.
/// All lengths are right again.
pub fn elements(input: &mut Input<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut root = Node::only(bytes);
    for _ in 0..=input.below(4) {
        let how = input.below(7);
        let path = input.bytes(7);
        let mut node = &mut root;
        // Down by the path, as far as there are elements within elements.
        for step in path {
            if *step == 0xff || !matches!(&node.content, Content::Nodes(nodes) if !nodes.is_empty()) {
                break;
            }
            let nodes = node.nodes();
            let at = usize::from(*step) % nodes.len();
            node = &mut nodes[at];
        }
        change(input, how, node);
    }
    root.write()
}

fn change(input: &mut Input<'_>, how: u64, node: &mut Node) {
    let byte = input.byte();
    match (how, &mut node.content) {
        (0, _) => node.tag = byte,
        (1, Content::Nodes(nodes)) if !nodes.is_empty() => {
            nodes.remove(usize::from(byte) % nodes.len());
        }
        (2, Content::Nodes(nodes)) if !nodes.is_empty() => {
            let at = usize::from(byte) % nodes.len();
            nodes.insert(at, nodes[at].clone());
        }
        (3, Content::Nodes(nodes)) if nodes.len() > 1 => {
            let at = usize::from(byte) % (nodes.len() - 1);
            nodes.swap(at, at + 1);
        }
        (4, content) => *content = Content::Bytes(input.bytes(usize::from(byte % 40)).to_vec()),
        (_, Content::Bytes(bytes)) if !bytes.is_empty() => {
            let at = usize::from(byte) % bytes.len();
            bytes[at] = input.byte();
        }
        (_, Content::Bytes(bytes)) => bytes.push(byte),
        (_, Content::Nodes(nodes)) => nodes.push(Node { tag: 5, content: Content::Bytes(Vec::new()) }),
    }
}
