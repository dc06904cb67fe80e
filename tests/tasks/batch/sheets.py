"""Spreadsheets for tests: by openpyxl, and by hand where nothing that is installed writes them."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
import zlib
from typing import Any

import openpyxl

XLS = zlib.decompress(
    base64.b85decode(
        r"c-rk)O=uHA6#izj`L#_pH5FPhgo0IL3l$G~Y1f}>PpQ?5Rs>B=pd}@dv><xWYRyp)JSkoZ_28xc9Q;8KiWd(;MGt}?Bzp8DD0pbI"
        r"zInTA)2h&b7OL|t^XAQ)_h#PCo1dM1H5)BY-EFO433}i`)e6E_BNLQ@ZovT6Tb5+qJV41(SXBrHD3Crc9yh-9%NWXdSD@jJ{){N_"
        r"fzmOYLVqEjO{^gHun%b=eds1CaDyaaw6IrAOiwah%k(yDK4H3xC6}3YlWtiY#jM$%-095XBU&5Rg(2I0z&7t#vJK66A!qUVE5g?G"
        r"Vs~*QJ-W&&;(7z7K>_W{=Cegvj^HLjz#ySBmFn#6Eh9$3p2k-z0eo>+_0xosudG~v<lh#{{lAe1D2PktS2Z1&fOUcwNeOFU=(5Ix"
        r"1EZNaBxy>36V30D3{{P%$8waN9?s@HKv&leTJn2`3x%<4Nbc{v9~g`FgGOE_4Ma1DFdyaBVvs{~w?4m44GoybSu(+AfPGSIl#ao|"
        r"1!+OXVc2fDG|3iQnO@{p*E8SBG)6vC-agRmF#9K2=MvYpQ$O1oZ_G_K{AS`ypAJ5Zmp+<Xh@a`JoQ=)AHK))<Cs&5-<ui#6(IKv1"
        r"lXzshxo~!s_e@)U+F=5k;rMPj$6*BXa!nDUOzn~!9r2^2Ib$WQ#V@P{TYDUR!Pauz&S|owkx%!YYizA?YYWy=Lu2bW$7zET8GD2+"
        r"N70YCkP5yYtqJ#~K5dT+2th$XK|w)5K|$fag0OD}{MD#CHw7PmH`@Po<|$RxZ<2o&hfttroGz97kf*$eGj+|Mb?^$eEwM}+_kW?p"
        r"Vd}kz9ERABT;21R?rfs=eU@!#{JAAmZ~xVL{QS%Pe+M#a)td"
    )
)
"""As xlwt writes it: the sheet Old with id, task and when; ("007", "Choose", 1 January 2024), and (7, =1/0)."""


def xlsx(*rows: tuple[Any, ...], **more: list[tuple[Any, ...]]) -> bytes:
    """A workbook with a sheet of these rows, and further ones by name; `_name` is hidden."""
    book = openpyxl.Workbook()
    sheets = {"Sheet": list(rows), **more}
    book.remove(book.worksheets[0])
    for name, cells in sheets.items():
        sheet = book.create_sheet(name.removeprefix("_"))
        sheet.sheet_state = "hidden" if name.startswith("_") else "visible"
        for row in cells:
            sheet.append(row)
    return saved(book)


def saved(book: openpyxl.Workbook) -> bytes:
    """The file of a workbook."""
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def with_part(content: bytes, part: str, text: str) -> bytes:
    """The same archive with another document in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, text if name == part else old.read(name))
    return made.getvalue()


ODS = """<?xml version="1.0" encoding="UTF-8"?><office:document-content
xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
xmlns:calcext="urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0"
office:version="1.2"><office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body></office:document-content>"""


def ods(**tables: str) -> bytes:
    """A document of LibreOffice with these tables, as their rows are written there."""
    file = io.BytesIO()
    written = "".join(f'<table:table table:name="{name}">{rows}</table:table>' for name, rows in tables.items())
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        packed.writestr("content.xml", ODS.format(tables=written))
        packed.writestr("META-INF/manifest.xml", "<manifest/>")
    return file.getvalue()


def ods_row(*cells: str, repeated: int = 1) -> str:
    """A row; a cell is a text, or XML as it stands."""
    made = (one if one.startswith("<") else ods_cell("string", one) for one in cells)
    return f'<table:table-row table:number-rows-repeated="{repeated}">{"".join(made)}</table:table-row>'


def ods_cell(kind: str, text: str, more: str = "") -> str:
    """A cell with the text that is seen."""
    return f'<table:table-cell office:value-type="{kind}" {more}><text:p>{text}</text:p></table:table-cell>'


def xlsb(*rows: tuple[str | float | bytes, ...]) -> bytes:
    """A binary workbook with the sheet Binary; a byte is the code of an error."""
    wide = max(map(len, rows)) - 1
    sheet = _record(129) + _record(148, struct.pack("<4I", 0, len(rows) - 1, 0, wide)) + _record(145)
    for number, row in enumerate(rows):
        sheet += _record(0, struct.pack("<I", number) + bytes(13))
        sheet += b"".join(_cell(column, value) for column, value in enumerate(row))
    named = struct.pack("<II", 0, 1) + _wide("rId1") + _wide("Binary")
    book = _record(131) + _record(153, bytes(12)) + _record(143) + _record(156, named) + _record(144) + _record(132)
    link = '<Relationships><Relationship Id="rId1" Type="worksheet" Target="worksheets/sheet1.bin"/></Relationships>'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("xl/workbook.bin", book)
        packed.writestr("xl/_rels/workbook.bin.rels", link)
        packed.writestr("xl/worksheets/sheet1.bin", sheet + _record(146) + _record(130))
    return file.getvalue()


def _record(kind: int, content: bytes = b"") -> bytes:
    named = bytes([kind]) if kind < 128 else bytes([kind & 0x7F | 0x80, kind >> 7])
    assert len(content) < 128
    return named + bytes([len(content)]) + content


def _cell(column: int, value: str | float | bytes) -> bytes:
    place = struct.pack("<II", column, 0)
    if isinstance(value, str):
        return _record(6, place + _wide(value))
    if isinstance(value, bytes):
        return _record(3, place + value)
    return _record(5, place + struct.pack("<d", value))


def _wide(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode("utf-16-le")
