//! Just enough of DER to write what OpenSSL would not, and to write it wrongly.

/// An element: tag and content.
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag][..], &length(content.len()), content].concat()
}

fn length(length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => vec![short],
        _ => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            [&[0x80 | u8::try_from(bytes.len()).unwrap()][..], &bytes].concat()
        }
    }
}

/// An element of well-formed DER.
#[derive(Clone)]
pub struct Node {
    pub tag: u8,
    pub content: Content,
}

/// Something done to an element.
pub type Change = fn(&mut Node);

/// What is in an element.
#[derive(Clone)]
pub enum Content {
    Bytes(Vec<u8>),
    Nodes(Vec<Node>),
}

impl Node {
    /// The elements that `bytes` are.
    pub fn read(mut bytes: &[u8]) -> Vec<Self> {
        let mut nodes = Vec::new();
        while let [tag, first, rest @ ..] = bytes {
            let count = if *first < 0x80 { 0 } else { usize::from(*first & 0x7f) };
            let (digits, rest) = rest.split_at(count);
            let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            let (content, rest) = rest.split_at(if count == 0 { usize::from(*first) } else { length });
            let content =
                if tag & 0x20 == 0 { Content::Bytes(content.to_vec()) } else { Content::Nodes(Self::read(content)) };
            nodes.push(Self { tag: *tag, content });
            bytes = rest;
        }
        nodes
    }

    /// The one element that `bytes` are.
    pub fn only(bytes: &[u8]) -> Self {
        let mut nodes = Self::read(bytes);
        assert_eq!(nodes.len(), 1);
        nodes.remove(0)
    }

    pub fn write(&self) -> Vec<u8> {
        self.write_with(&mut |_, _, content| length(content.len()))
    }

    /// Writes the element, with what `length` says for the length of each; it is told the element's number, in
    /// the order in which they end, and its tag.
    pub fn write_with(&self, length: &mut impl FnMut(usize, u8, &mut Vec<u8>) -> Vec<u8>) -> Vec<u8> {
        self.numbered(&mut 0, length)
    }

    fn numbered(&self, count: &mut usize, length: &mut impl FnMut(usize, u8, &mut Vec<u8>) -> Vec<u8>) -> Vec<u8> {
        let mut content = match &self.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Nodes(nodes) => nodes.iter().flat_map(|node| node.numbered(count, length)).collect(),
        };
        let number = *count;
        *count += 1;
        let length = length(number, self.tag, &mut content);
        [&[self.tag][..], &length, &content].concat()
    }

    /// How many elements there are, this one among them.
    fn count(&self) -> usize {
        match &self.content {
            Content::Bytes(_) => 1,
            Content::Nodes(nodes) => 1 + nodes.iter().map(Self::count).sum::<usize>(),
        }
    }

    /// The element at `path`: the number of the child at each level.
    pub fn at(&mut self, path: &[usize]) -> &mut Self {
        match path {
            [] => self,
            [first, rest @ ..] => self.nodes()[*first].at(rest),
        }
    }

    /// The children.
    pub fn nodes(&mut self) -> &mut Vec<Self> {
        match &mut self.content {
            Content::Nodes(nodes) => nodes,
            Content::Bytes(_) => panic!("no children"),
        }
    }
}

/// Every way to write one element's length longer than it must be. All other lengths are right.
pub fn long_lengths(bytes: &[u8]) -> Vec<Vec<u8>> {
    let root = Node::only(bytes);
    assert_eq!(root.write(), bytes, "what was read is DER");
    (0..root.count())
        .map(|chosen| {
            root.write_with(&mut |number, _, content| {
                let mut shortest = length(content.len());
                if number == chosen && shortest.len() == 1 {
                    shortest.insert(0, 0x81);
                } else if number == chosen {
                    shortest[0] += 1;
                    shortest.insert(1, 0);
                }
                shortest
            })
        })
        .collect()
}

/// As [`long_lengths`], and every way to write an element without end.
pub fn reencodings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let root = Node::only(bytes);
    let mut all = long_lengths(bytes);
    for chosen in 0..root.count() {
        let mut constructed = false;
        let indefinite = root.write_with(&mut |number, tag, content| {
            let shortest = length(content.len());
            if number == chosen && tag & 0x20 != 0 {
                constructed = true;
                content.extend([0, 0]);
                return vec![0x80];
            }
            shortest
        });
        if constructed {
            all.push(indefinite);
        }
    }
    all
}
