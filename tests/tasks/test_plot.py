"""The picture of a tally: its cells say what the ballots say."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

from tasks.artifacts.plot import MAX_PROPOSALS, MAX_VOTERS, cells, tally_picture, tally_svg
from tasks.council.voting.election import Ballot, Candidate
from tasks.council.voting.tally import Tally, tally

SVG = "{http://www.w3.org/2000/svg}"


def counted(members: int, voters: int | None = None, named: str = "m") -> Tally:
    """A tally of ballots that all rank by number, and leave the last one out."""
    ids = [f"{named}{number}" for number in range(1, members + 1)]
    ballots = []
    for voter in ids[:voters]:
        shown = tuple(one for one in ids if one != voter)
        ballots.append(Ballot(voter=voter, shown=shown, ranking=shown[:-1]))
    return tally([Candidate(one, 0.5) for one in ids], ballots)


def drawn(picture: str) -> dict[str, str]:
    """The texts of the picture by what they are about."""
    groups = ElementTree.fromstring(picture).iter(f"{SVG}g")  # our own picture
    return {group.attrib["id"]: "".join(group.itertext()).strip() for group in groups if " " in group.get("id", "")}


def test_a_cell_says_where_a_voter_ranked_a_proposal() -> None:
    """Its own is marked, and one that it left out; the votes stand above."""
    assert drawn(tally_svg(counted(3, voters=2))) == {
        "rank m1 m1": "own",
        "rank m1 m2": "1",
        "rank m1 m3": "-",
        "rank m2 m1": "1",
        "rank m2 m2": "own",
        "rank m2 m3": "-",
        "votes m1": "1.00",
        "votes m2": "1.00",
        "votes m3": "0.00",
    }


def test_a_picture_is_capped_and_says_so() -> None:
    """At the best proposals and the first voters, whose names are shortened."""
    large = counted(40, named="a-rather-long-name-of-a-member-")
    picture = tally_svg(large)
    assert sum(what.startswith("rank ") for what in drawn(picture)) == MAX_PROPOSALS * MAX_VOTERS == cells(large)
    assert "the best 20 of 40 proposals and the first 24 of 40 ballots" in picture
    assert ">a-rather-long-name-of...<" in picture
    assert "proposals and" not in tally_svg(counted(3))


def test_the_same_tally_gives_the_same_picture_also_when_many_are_drawn_at_once() -> None:
    """Settings that are shared, dates and random ids have no part in it."""
    tallies = [counted(number) for number in (3, 4, 5)] * 3
    alone = [tally_svg(one) for one in tallies]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tally_svg, tallies)) == alone
    assert len(set(alone)) == 3


def test_a_picture_can_be_embedded() -> None:
    """On a white ground, since one of the UIs is dark; its words stay words."""
    kind, _, data = tally_picture(counted(3)).partition(",")
    picture = base64.b64decode(data).decode()
    assert kind == "data:image/svg+xml;base64"
    assert "fill: #ffffff" in picture
    assert "<text" in picture
