"""Builds the embedded text pool: real pages from documentation packages, generated junk, held-out prose.

`sources` reads packages, `prose` extracts text, `overlap` measures shared shingles, `junk` writes the
generated pages and the mirrors, `legacy` re-encodes pages into old charsets, `records` writes WARC.
`pools.build_text` puts them together; `pools.demo_text` is what everybody else imports.
"""
