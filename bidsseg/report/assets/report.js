/* The page's viewer. A scan comes as two volumes on one grid: grey values, and for each voxel the row of a table that
 * gives its code in every label scheme. So a switch of schemes needs no other volume, only another column. */

const LESION_COLOR = "#ff2828";

function text(tag, content, className = "") {
  const node = document.createElement(tag);
  node.textContent = content;
  node.className = className;
  return node;
}

function swatch(color) {
  const node = text("span", "", "swatch");
  node.style.background = color;
  return node;
}

class Viewer extends SliceViewer {
  constructor(canvas, scans) {
    super(canvas);
    this.scans = scans;
    this.opacity = [0.4, 0.8];
  }

  async open(anchor, scheme) {
    const scan = this.scans.get(anchor);
    this.anchor = anchor;
    this.scan = scan;
    const [grey, rows] = await Promise.all([unpack(`grey-${anchor}`), unpack(`rows-${anchor}`)]);
    const image = (buffer, name) => niivue.NVImage.new(buffer, name);
    const volumes = [await image(grey, "scan.nii"), await image(rows, "labels.nii")];
    if (scan.codes.lesions) volumes.push(await image(rows.slice(0), "lesions.nii"));
    this.percent = element(`percent-${anchor}`) && (await image(await unpack(`percent-${anchor}`), "percent.nii")).img;
    this.rows = volumes[1].img.slice();
    this.size = volumes[1].hdr.dims.slice(1, 4);
    volumes[0].colormap = "gray";
    volumes[0].cal_min = 0;
    volumes[0].cal_max = 255;
    this.nv.volumes.slice().reverse().forEach((old) => this.nv.removeVolume(old));
    volumes.forEach((volume) => this.nv.addVolume(volume));
    if (volumes[2]) this.paintLesions(volumes[2]);
    element("lesions-choice").hidden = !volumes[2];
    this.show(scan.schemes[scheme] ? scheme : Object.keys(scan.schemes)[0]);
  }

  /* Lesions, part by part, in the colours of their zones, where these are known. */
  paintLesions(volume) {
    const zones = this.zones();
    const zone = Uint16Array.from(this.scan.codes.lesions, (number, row) => this.zoneOfRow(row));
    this.rows.forEach((row, voxel) => { volume.img[voxel] = zone[row]; });
    volume.setColormapLabel(palette(zones.map(({ color }) => rgb(color)), zones.map(({ name }) => name)));
    const seen = new Set(zone);
    element("zones").replaceChildren(...zones.filter((_, at) => seen.has(at + 1))
      .flatMap(({ name, color }) => [swatch(color), text("span", name)]));
  }

  zones() {
    return this.scan.lesions ? this.scan.lesions.zones : [{ name: "zone unknown", color: LESION_COLOR }];
  }

  /* 1 + place among the zones; of the whole lesion. */
  zoneOf(number) {
    if (!number) return 0;
    return (this.scan.lesions && this.scan.lesions.zone_of[number]) || 1;
  }

  /* The same of the part of a lesion; of the whole lesion where no parts are known. */
  zoneOfRow(row) {
    const part = this.scan.codes.parts && this.scan.codes.parts[row];
    return (part && this.scan.lesions.zone_of_part[part]) || this.zoneOf(this.scan.codes.lesions[row]);
  }

  show(scheme) {
    this.scheme = scheme;
    const labels = this.scan.schemes[scheme];
    const number = new Map(labels.map((label, at) => [label.code, at + 1]));
    this.numbers = Uint16Array.from(this.scan.codes[scheme], (code) => number.get(code) || 0);
    const volume = this.nv.volumes[1];
    this.rows.forEach((row, voxel) => { volume.img[voxel] = this.numbers[row]; });
    volume.setColormapLabel(palette(labels.map((label) => rgb(label.color)), labels.map((label) => label.name)));
    this.style(...this.opacity);
    this.tell(this.crosshair());
  }

  /* Opacity of labels and lesions, 0 to 1. */
  style(labels, lesions) {
    this.opacity = [labels, lesions];
    this.nv.volumes.slice(1).forEach((volume, at) => { volume.opacity = this.opacity[at]; });
    if (this.nv.volumes.length) this.refresh();
  }

  /* Which label a voxel has, in words. */
  tell(vox) {
    if (!this.rows || !vox) return;
    const [i, j, k] = vox.map(Math.round);
    const voxel = i + this.size[0] * (j + this.size[1] * k);
    const label = this.scan.schemes[this.scheme][this.numbers[this.rows[voxel]] - 1];
    element("readout").replaceChildren(
      swatch(label ? label.color : "transparent"), text("strong", label ? label.name : "outside the labels"),
      text("span", this.facts(label).join(" · "), "soft"), ...this.tellLesion(voxel));
  }

  facts(label) {
    const told = label ? [String(label.code)] : [];
    if (label && label.ml !== null) told.push(`${label.ml.toFixed(2)} mL`);
    if (label && label.confidence !== null) told.push(`confidence ${label.confidence.toFixed(2)}`);
    return told;
  }

  /* Number, zone and volume of the lesion at a voxel, and how probable lesion is there, also beside lesions. */
  tellLesion(voxel) {
    const row = this.rows[voxel];
    const number = this.scan.codes.lesions ? this.scan.codes.lesions[row] : 0;
    const chance = this.percent && this.percent[voxel]
      ? [`probability of lesion ${(this.percent[voxel] / 100).toFixed(2)}`] : [];
    if (!number) return chance.map((told) => text("span", told, "soft"));
    const [whole, here] = [this.zoneOf(number), this.zoneOfRow(row)].map((zone) => this.zones()[zone - 1]);
    const facts = whole.name === here.name ? [whole.name] : [`${whole.name}, here ${here.name}`];
    if (this.scan.lesions) facts.push(`${this.scan.lesions.ml_of[number].toFixed(2)} mL`);
    return [swatch(here.color), text("strong", `Lesion ${number}`), text("span", [...facts, ...chance].join(" · "), "soft")];
  }

  /* Move the crosshair to the voxel of a label that is nearest to the label's middle. */
  find(code) {
    const wanted = this.scan.schemes[this.scheme].findIndex((label) => label.code === code) + 1;
    if (!wanted) return;
    const members = this.members((row) => this.numbers[row] === wanted);
    this.go(members, [0, 1, 2].map((axis) => members.reduce((sum, at) => sum + at[axis], 0) / members.length));
  }

  /* The same of a lesion, and of a place in mm (RAS). */
  findLesion(number, mm) {
    const middle = this.nv.frac2vox(this.nv.mm2frac(mm, 0, true));
    const members = this.members((row) => this.scan.codes.lesions[row] === number);
    this.go(members.length ? members : [middle], middle);
  }

  /* The voxels whose rows are wanted. */
  members(isWanted) {
    const [ni, nj] = this.size;
    const found = [];
    this.rows.forEach((row, voxel) => {
      if (isWanted(row)) found.push([voxel % ni, Math.floor(voxel / ni) % nj, Math.floor(voxel / (ni * nj))]);
    });
    return found;
  }

  go(members, middle) {
    const distance = (at) => at.reduce((sum, n, axis) => sum + ((n - middle[axis]) * this.scan.spacing_mm[axis]) ** 2, 0);
    const nearest = members.reduce((best, at) => (distance(at) < distance(best) ? at : best));
    this.nv.scene.crosshairPos = this.nv.vox2frac(nearest);
    this.nv.drawScene();
    this.tell(nearest);
  }
}

/* A row of buttons of which one is pressed. */
function controls(viewer) {
  const schemes = () => choice("choose-scheme", Object.keys(viewer.scan.schemes).map((name) => [name, name]),
    viewer.scheme, (name) => { viewer.show(name); schemes(); });
  const open = async (anchor, scheme) => {
    await viewer.open(anchor, scheme);
    choice("choose-scan", [...viewer.scans].map(([key, scan]) => [scan.title, key]), anchor,
      (key) => open(key, viewer.scheme));
    schemes();
  };
  const view = (type) => {
    viewer.nv.setSliceType(type);
    choice("choose-view", VIEWS, type, view);
  };
  const shown = (id) => Number(element(id).checked);
  const restyle = () => viewer.style(Number(element("opacity").value) * shown("labels"), 0.8 * shown("lesions-shown"));
  ["opacity", "labels", "lesions-shown"].forEach((id) => element(id).addEventListener("input", restyle));
  document.querySelectorAll(".chart button").forEach((button) => button.addEventListener("click", async () => {
    const { scan, scheme, code } = button.dataset;
    if (!viewer.scans.has(scan)) return;
    element("viewer").scrollIntoView();
    if (scan !== viewer.anchor) await open(scan, scheme);
    if (scheme !== viewer.scheme && viewer.scan.schemes[scheme]) viewer.show(scheme);
    schemes();
    viewer.find(Number(code));
  }));
  document.querySelectorAll("tr.place").forEach((row) => row.addEventListener("click", async () => {
    const { base, lesion, mm } = row.dataset;
    const hasLesion = (scan) => scan.lesions && scan.lesions.base === base;
    if (!hasLesion(viewer.scan)) await open([...viewer.scans].find(([, scan]) => hasLesion(scan))[0], viewer.scheme);
    element("viewer").scrollIntoView();
    element("lesions-shown").checked = true;
    restyle();
    viewer.findLesion(Number(lesion), mm.split(" ").map(Number));
  }));
  return { open, view };
}

async function startViewer() {
  const canvas = element("canvas");
  if (!canvas) return;
  try {
    await loadNiivue();
    const scans = new Map([...document.querySelectorAll("script.volume")]
      .map((node) => [node.id.replace("data-", ""), JSON.parse(node.textContent)]));
    const viewer = new Viewer(canvas, scans);
    await viewer.start();
    const { open, view } = controls(viewer);
    await open(scans.keys().next().value, "regions");
    view(3);
    element("message").textContent = "";
    canvas.dataset.state = "ready";
    window.viewer = viewer;
  } catch (error) {
    element("message").textContent = `No interactive viewer: ${error.message}. The pictures below show the labels.`;
    canvas.dataset.state = "failed";
  }
}

/* On paper, the tables that matter are open. */
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("article").forEach((article) => article.querySelector("details.volumes")?.setAttribute("open", ""));
});

startViewer();
