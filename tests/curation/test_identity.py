"""What a step is known by."""


def test_a_function_whose_file_is_another_is_known_by_its_byte_code(tmp_path):
    """Code that was made by exec may name any file, where its first line is the middle of something."""
    from curation.identity import canonical

    page = tmp_path / "page.md"
    page.write_text("text (\n" * 9)

    def made(number: int):
        scope: dict = {}
        exec(compile(f"\n\ndef f(text: str) -> int:\n    return {number}\n", str(page), "exec"), scope)
        return scope["f"]

    assert canonical(made(1)) == canonical(made(1)) != canonical(made(2))
