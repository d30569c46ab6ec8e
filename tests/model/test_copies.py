import io
from dataclasses import replace

import numpy as np
from rich.console import Console

from model.copies import Copy, copies_between, warn_of_copies
from model.image_table import ImageTable
from tests.model.films import film_table


def table_with_copies(*pairs):
    table = film_table(8)
    images = np.array(table.images)
    for first, second in pairs:
        images[second] = images[first]
    return ImageTable(table.records, images, table.masks, ())


def said(table, learnt, scored):
    printed = io.StringIO()
    warn_of_copies(table, learnt, scored, Console(file=printed, width=500))
    return printed.getvalue()


def test_a_film_on_both_sides_is_found():
    table = table_with_copies((1, 6), (2, 3))
    assert copies_between(table, range(5), range(5, 8)) == [Copy(1, 6)]


def test_the_user_reads_how_many_and_which():
    table = table_with_copies((1, 6))
    text = said(table, range(5), range(5, 8))
    assert "1 of 3 films" in text
    assert f"{table.records[1].sop_instance_uid} = {table.records[6].sop_instance_uid}" in text
    assert "patient-" not in text


def test_a_uid_that_looks_like_markup_is_told_as_it_stands():
    table = table_with_copies((1, 6))
    uids = {1: "1.2.k[/b]", 6: "[red]1.2"}
    records = tuple(
        replace(r, sop_instance_uid=uids.get(row, r.sop_instance_uid))
        for row, r in enumerate(table.records)
    )
    text = said(replace(table, records=records), range(5), range(5, 8))
    assert "(1.2.k[/b] = [red]1.2)" in text


def test_different_films_are_not_spoken_of():
    assert said(film_table(8), range(5), range(5, 8)) == ""
