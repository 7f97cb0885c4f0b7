"""A Dockerfile is read as a container engine reads it, or refused; the project's own are read."""

from pathlib import Path

import pytest

from tests.dockerfile import assignments, copy, ignored, steps

ROOT = Path(__file__).parents[1]


def read(text: str) -> list[tuple[int, str, str]]:
    return [(step.line, step.word, step.rest) for step in steps(text)]


def test_lines_that_end_in_a_backslash_are_one_step_and_comments_between_them_go():
    text = "# first\nFROM base\n\nRUN one \\\n# why two\n    && two\nWORKDIR /src\n"

    assert read(text) == [(2, "FROM", "base"), (4, "RUN", "one     && two"), (7, "WORKDIR", "/src")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FROM a\nADD x y", "line 2: ADD is not known here; known: FROM, ARG"),
        ("FROM a\nRUN --mount=type=cache,target=/x make", "line 2: RUN with options"),
        ('FROM a\nRUN ["make"]', "line 2: RUN with options or as a list"),
        ("FROM a\nCOPY --from=b . .", "line 2: COPY with options"),
        ("FROM a\nENV PATH=/opt:$PATH", "line 2: variables in ENV"),
        ("FROM a\nRUN make \\\n", "line 2: the file ends in the middle"),
        ("FROM a\nFROM b", "one FROM"),
        ("RUN make", "one FROM"),
    ],
)
def test_what_is_not_known_is_refused_with_its_line(text, told):
    with pytest.raises(ValueError, match=told.replace("[", r"\[")):
        steps(text)


@pytest.mark.parametrize("name", ["build", "emulator", "train"])
def test_every_dockerfile_of_the_project_can_be_run_step_by_step(name):
    words = [step.word for step in steps((ROOT / "docker" / f"{name}.Dockerfile").read_text(encoding="utf-8"))]

    assert words[0] == "FROM"
    assert words[-1] == "CMD"


def test_env_sets_every_pair_and_quotes_go():
    assert assignments('A=1 B="two words"') == {"A": "1", "B": "two words"}


def test_env_in_the_old_form_is_refused():
    with pytest.raises(ValueError, match="NAME=VALUE"):
        assignments("NAME value")


@pytest.mark.parametrize(
    ("path", "out"),
    [("dist", True), ("a/dist", False), ("a/b/__pycache__", True), (".git/worktrees", True), (".git", False)],
)
def test_ignored_are_paths_from_the_top_and_names_anywhere(path, out):
    assert ignored("# why\ndist\n**/__pycache__\n.git/worktrees\n")(path) is out


@pytest.mark.parametrize("pattern", ["*.pyc", "!kept", "a/**/b"])
def test_pattern_that_is_not_known_is_refused(pattern):
    with pytest.raises(ValueError, match="is not known here"):
        ignored(pattern)


def test_copy_leaves_out_what_dockerignore_names_and_keeps_links(tmp_path):
    context, target = tmp_path / "context", tmp_path / "root/src"
    for folder in ("kept/__pycache__", "dist"):
        (context / folder).mkdir(parents=True)
        (context / folder / "file").write_text("x")
    (context / ".dockerignore").write_text("dist\n**/__pycache__\n")
    (context / "link").symlink_to("kept")

    copy(context, ".", target)

    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*")) == [
        ".dockerignore",
        "kept",
        "link",
    ]
    assert (target / "link").is_symlink()


def test_the_project_s_dockerignore_is_known():
    assert ignored((ROOT / ".dockerignore").read_text(encoding="utf-8"))(".venv")
