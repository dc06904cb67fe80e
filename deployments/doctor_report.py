"""What the doctor found, on a terminal line by line or as one JSON document."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

from rich.console import Console
from rich.text import Text

from deployments.doctor import Finding
from deployments.terminal import plain, stdout

MARKS = {"ok": ("ok", "green"), "warning": ("look", "yellow"), "failed": ("FAILED", "bold red")}


class Report:
    """Tells findings as they come; on the terminal, or with `as_json` in one document at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console: Console = stdout()

    async def of(self, findings: AsyncGenerator[Finding, None]) -> bool:
        """Tell all of them; whether nothing failed."""
        told = []
        async for finding in findings:
            told.append(finding)
            if not self._as_json:
                self._console.print(_line(finding), soft_wrap=True)
        failed = [finding.subject for finding in told if finding.state == "failed"]
        if self._as_json:
            document = {"healthy": not failed, "findings": [finding.model_dump() for finding in told]}
            self._console.file.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        elif failed:
            self._console.print(Text(f"{len(failed)} of {len(told)} failed: {', '.join(failed)}", style="bold red"))
        else:
            self._console.print(Text(f"all {len(told)} are well", style="bold green"))
        return not failed


def _line(finding: Finding) -> Text:
    mark, style = MARKS[finding.state]
    seconds = f"  {finding.seconds:.2f} s" if finding.seconds is not None else ""
    line = Text(f"{mark:7}", style=style).append(f"{finding.subject:14} ", style="bold")
    line.append(f"{plain(finding.text)}{seconds}", style="default")
    if finding.advice:
        line.append(f"\n{'':7}{'':14} -> {finding.advice}", style="dim")
    return line
