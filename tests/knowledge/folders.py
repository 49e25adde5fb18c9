"""Folders of documents for tests, with their indexes."""

from pathlib import Path
from typing import Any

from seawall.knowledge.build import Built, build_index
from seawall.knowledge.search import Found, IndexSearch
from seawall.knowledge.settings import KnowledgeSettings


def settings_of(folder: Path, **more: Any) -> KnowledgeSettings:
    return KnowledgeSettings(
        folder=str(folder), index=str(folder.with_name(f"{folder.name}.knowledge")), **more
    )


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


def built(folder: Path, files: dict[str, str | bytes], **more: Any) -> KnowledgeSettings:
    """The settings of a folder with these files, whose index is built."""
    folder.mkdir(exist_ok=True)
    write(folder, files)
    settings = settings_of(folder, **more)
    build(settings)
    return settings


def build(settings: KnowledgeSettings, **options: Any) -> Built:
    return build_index("docs", settings, **options)


def found(settings: KnowledgeSettings, question: str, count: int = 5) -> list[Found]:
    search = IndexSearch(Path(settings.index))
    try:
        return search.search(question, count)
    finally:
        search.close()


def pdf(*pages: str, title: str = "") -> bytes:
    """A PDF document with a line of text on each page."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    fonts = "/Resources << /Font << /F1 3 0 R >> >>"
    for number, text in enumerate(pages):
        place = f"/MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R"
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects += [
            f"<< /Type /Page /Parent 2 0 R {place} {fonts} >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    objects.append(f"<< /Title ({title}) >>")
    data = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    start = len(data)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    data += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>"
    return data + f"trailer\n{trailer}\nstartxref\n{start}\n%%EOF\n".encode()
