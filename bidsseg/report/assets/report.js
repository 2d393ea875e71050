/* The page's viewer. A scan comes as two volumes on one grid: grey values, and for each voxel the row of a table that
 * gives its code in every label scheme. So a switch of schemes needs no other volume, only another column. */

const VIEWS = [["Three planes", 3], ["Axial", 0], ["Coronal", 1], ["Sagittal", 2]];
const LESION_COLOR = "#ff2828";

function run(script) {
  return new Promise((resolve, reject) => {
    const node = document.createElement("script");
    node.src = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    node.onload = resolve;
    node.onerror = () => reject(new Error("the viewer's code could not be read"));
    document.head.append(node);
  });
}

function rgb(color) {
  return [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
}

/* Colours by label number; 0 is see-through. */
function palette(colors, names) {
  const channel = (at) => [0, ...colors.map((color) => color[at])];
  return {
    R: channel(0), G: channel(1), B: channel(2), A: [0, ...colors.map(() => 255)],
    I: [0, ...colors.map((_, number) => number + 1)], labels: ["", ...names],
  };
}

class Viewer {
  constructor(canvas, scans) {
    this.canvas = canvas;
    this.scans = scans;
    this.opacity = [0.4, 0.8];
    this.nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 0.85, 0.2, 0.9], crosshairWidth: 0.4, loadingText: "",
      dragAndDropEnabled: false, isRadiologicalConvention: false, multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
      show3Dcrosshair: false, isColorbar: false, fontColor: [0.8, 0.85, 0.9, 1], logLevel: "error",
    });
  }

  async start() {
    await this.nv.attachToCanvas(this.canvas);
    this.nv.onLocationChange = (place) => this.tell(place.vox);
    this.canvas.addEventListener("mousemove", (event) => this.hover(event));
    this.canvas.addEventListener("mouseleave", () => this.tell(this.crosshair()));
  }

  async open(anchor, scheme) {
    const scan = this.scans.get(anchor);
    this.anchor = anchor;
    this.scan = scan;
    const [grey, rows] = await Promise.all([unpack(`grey-${anchor}`), unpack(`rows-${anchor}`)]);
    const image = (buffer, name) => niivue.NVImage.new(buffer, name);
    const volumes = [await image(grey, "scan.nii"), await image(rows, "labels.nii")];
    if (scan.codes.lesions) volumes.push(await image(rows.slice(0), "lesions.nii"));
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

  /* Lesions in the colours of their zones, where these are known. */
  paintLesions(volume) {
    const zones = this.scan.lesions ? this.scan.lesions.zones : [{ name: "lesion", color: LESION_COLOR }];
    const zone = Uint16Array.from(this.scan.codes.lesions, (number) => this.zoneOf(number));
    this.rows.forEach((row, voxel) => { volume.img[voxel] = zone[row]; });
    volume.setColormapLabel(palette(zones.map(({ color }) => rgb(color)), zones.map(({ name }) => name)));
  }

  zoneOf(number) {
    if (!number) return 0;
    return (this.scan.lesions && this.scan.lesions.zone_of[number]) || 1;
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

  /* The scan is shown smooth, the labels as the voxels they are. */
  refresh() {
    this.nv.updateGLVolume();
    this.nv.opts.isNearestInterpolation = true;
    this.nv.updateInterpolation(1);
    this.nv.opts.isNearestInterpolation = false;
    this.nv.drawScene();
  }

  crosshair() {
    return this.nv.frac2vox(this.nv.scene.crosshairPos);
  }

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    const frac = this.nv.canvasPos2frac([(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]);
    if (frac[0] >= 0) this.tell(this.nv.frac2vox(frac));
  }

  /* Which label a voxel has, in words. */
  tell(vox) {
    if (!this.rows || !vox) return;
    const [i, j, k] = vox.map(Math.round);
    const row = this.rows[i + this.size[0] * (j + this.size[1] * k)];
    const label = this.scan.schemes[this.scheme][this.numbers[row] - 1];
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = label ? label.color : "transparent";
    const name = document.createElement("strong");
    name.textContent = label ? label.name : "outside the labels";
    const facts = document.createElement("span");
    facts.className = "soft";
    facts.textContent = this.facts(label, row).join(" · ");
    element("readout").replaceChildren(swatch, name, facts);
  }

  facts(label, row) {
    const told = label ? [String(label.code)] : [];
    if (label && label.ml !== null) told.push(`${label.ml.toFixed(2)} mL`);
    if (label && label.confidence !== null) told.push(`confidence ${label.confidence.toFixed(2)}`);
    const lesion = this.scan.codes.lesions && this.scan.codes.lesions[row];
    if (!lesion) return told;
    const zone = this.scan.lesions ? `, ${this.scan.lesions.zones[this.zoneOf(lesion) - 1].name}` : "";
    return [...told, `lesion ${lesion}${zone}`];
  }

  /* Move the crosshair to the voxel of a label that is nearest to the label's middle. */
  find(code) {
    const wanted = this.scan.schemes[this.scheme].findIndex((label) => label.code === code) + 1;
    if (!wanted) return;
    const [ni, nj] = this.size;
    const place = (voxel) => [voxel % ni, Math.floor(voxel / ni) % nj, Math.floor(voxel / (ni * nj))];
    const members = [];
    this.rows.forEach((row, voxel) => { if (this.numbers[row] === wanted) members.push(place(voxel)); });
    const middle = [0, 1, 2].map((axis) => members.reduce((sum, at) => sum + at[axis], 0) / members.length);
    const distance = (at) => at.reduce((sum, value, axis) => sum + (value - middle[axis]) ** 2, 0);
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
  return { open, view };
}

async function startViewer() {
  const canvas = element("canvas");
  if (!canvas) return;
  try {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser has no WebGL 2");
    await run(await unpack("niivue"));
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
