"""The countries that templates of flags name by a code of three letters: ``{{KOR}}``, ``{{국기나라|JPN}}``."""

from __future__ import annotations

import re

# Codes of the International Olympic Committee and of ISO 3166.
_NAMES = """
    KOR:대한민국 PRK:조선민주주의인민공화국 JPN:일본 CHN:중화인민공화국 TPE:중화_타이베이 TWN:중화민국 HKG:홍콩
    MAC:마카오 MGL:몽골 MNG:몽골 VIE:베트남 VNM:베트남 THA:태국 PHI:필리핀 PHL:필리핀 MAS:말레이시아 MYS:말레이시아
    SGP:싱가포르 SIN:싱가포르 INA:인도네시아 IDN:인도네시아 IND:인도 PAK:파키스탄 IRN:이란 IRI:이란 IRQ:이라크
    KSA:사우디아라비아 SAU:사우디아라비아 QAT:카타르 UAE:아랍에미리트 ARE:아랍에미리트 ISR:이스라엘 TUR:튀르키예
    UZB:우즈베키스탄 KAZ:카자흐스탄 USA:미국 CAN:캐나다 MEX:멕시코 CUB:쿠바 BRA:브라질 ARG:아르헨티나 CHI:칠레
    CHL:칠레 COL:콜롬비아 PER:페루 URU:우루과이 URY:우루과이 VEN:베네수엘라 GBR:영국 ENG:잉글랜드 SCO:스코틀랜드
    WAL:웨일스 IRL:아일랜드 FRA:프랑스 GER:독일 DEU:독일 ITA:이탈리아 ESP:스페인 POR:포르투갈 PRT:포르투갈
    NED:네덜란드 NLD:네덜란드 BEL:벨기에 SUI:스위스 CHE:스위스 AUT:오스트리아 SWE:스웨덴 NOR:노르웨이 DEN:덴마크
    DNK:덴마크 FIN:핀란드 ISL:아이슬란드 POL:폴란드 CZE:체코 SVK:슬로바키아 HUN:헝가리 ROU:루마니아 BUL:불가리아
    BGR:불가리아 GRE:그리스 GRC:그리스 SRB:세르비아 CRO:크로아티아 HRV:크로아티아 SVN:슬로베니아 UKR:우크라이나
    BLR:벨라루스 RUS:러시아 URS:소련 EST:에스토니아 LAT:라트비아 LVA:라트비아 LTU:리투아니아 AUS:오스트레일리아
    NZL:뉴질랜드 RSA:남아프리카_공화국 ZAF:남아프리카_공화국 EGY:이집트 MAR:모로코 TUN:튀니지 ALG:알제리 DZA:알제리
    NGA:나이지리아 NGR:나이지리아 GHA:가나 CMR:카메룬 KEN:케냐 ETH:에티오피아
"""
COUNTRIES = {code: name.replace("_", " ") for code, name in re.findall(r"([A-Z]{3}):(\S+)", _NAMES)}
