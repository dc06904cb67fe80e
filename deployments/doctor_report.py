"""What the doctor found, on a terminal line by line or as one JSON document."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from rich.text import Text

from deployments.terminal import stdout
from tasks.council.plain import plain, plain_json
from tasks.operate.diagnose import Finding

MARKS = {"ok": ("ok", "green"), "warning": ("look", "yellow"), "failed": ("FAILED", "bold red")}


async def tell(findings: AsyncGenerator[Finding, None], as_json: bool) -> bool:
    """Tell all findings, on the terminal as they come, or in one document at the end; whether nothing failed."""
    console, told = stdout(), []
    async for finding in findings:
        told.append(finding)
        if not as_json:
            console.print(_line(finding), soft_wrap=True)
    failed = [finding.subject for finding in told if finding.state == "failed"]
    if as_json:
        document = {"healthy": not failed, "findings": [finding.model_dump() for finding in told]}
        console.file.write(plain_json(document) + "\n")
    elif failed:
        console.print(Text(f"{len(failed)} of {len(told)} failed: {', '.join(failed)}", style="bold red"))
    else:
        console.print(Text(f"all {len(told)} are well", style="bold green"))
    return not failed


def _line(finding: Finding) -> Text:
    mark, style = MARKS[finding.state]
    seconds = f"  {finding.seconds:.2f} s" if finding.seconds is not None else ""
    line = Text(f"{mark:7}", style=style).append(f"{finding.subject:14} ", style="bold")
    line.append(f"{plain(finding.text)}{seconds}", style="default")
    if finding.advice:
        line.append(f"\n{'':7}{'':14} -> {plain(finding.advice)}", style="dim")
    return line
