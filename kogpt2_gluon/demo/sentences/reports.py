"""Scenes in the third person: news, forecasts, matches, small encyclopaedia entries (marks: see scenes.py)."""

from __future__ import annotations

from kogpt2_gluon.demo.sentences.scenes import WRITTEN, Scene

REPORTS = (
    Scene(
        "news_company",
        7,
        WRITTEN,
        """
        {company}~이 {date} 새로운 {newitem}~을 <선보이 past>
        {company}~은 {date} {city}에 [공장|연구소|물류 센터]~을 짓는다고 <밝히 past>
        {company}의 [올해|지난해|상반기|하반기] 매출이 전년보다 {2.1~28.9}% [<늘 past>|<줄 past>]
        {company}~과 {company2}~이 {newitem} 사업에서 손을 <잡 past>
        {company} {fullname2} 대표가 {date} [간담회|기자 회견|전시회]에서 내년 계획을 <발표하 past>
        """,
        """
        {company}~은 {1971~2018 y}년에 {city2}에서 [문을 <열 past>|작은 가게로 <시작하 past>]
        {company}~은 이번 사업에 [3년|4년|5년] 동안 {120~2900/10 ,}억 원을 투자할 예정<이 pres>
        {newitem}의 가격은 {itemprice}~으로 <정해지 past>
        [해외|국내|지역|온라인] 매출은 {110~980}억 원으로 {3~19}% <늘어나 past>
        {company}~은 올해 [새로|모두] {40~900/10}명을 뽑을 계획<이 pres>
        {fullname} [부사장|본부장|연구소장]~은 "품질을 높여 고객의 믿음을 얻겠다"고 <강조하 past>
        업계에서는 [{newitem} 시장이 해마다 {3~17}%씩 커질|경쟁이 치열해질] 것으로 <보 고> <있 pres>
        전문가들은 [원자재 가격|환율|금리]~이 변수가 될 것이라고 <전망하 past>
        """,
        """
        {company}의 주가는 이날 {0.3~6.9}% [오른|내린] {5200~189000/100 원}에 거래를 <마치 past>
        제품은 {month}부터 [전국 매장|온라인 매장]에서 살 수 <있 pres>
        자세한 내용은 [다음 달|이달 말|다음 주]에 <공개하 plan>
        """,
    ),
    Scene(
        "news_event",
        6,
        WRITTEN,
        """
        {city}에서 {date}부터 {3~9}일 동안 {event}~이 <열리 pres>
        {city} {agency}~은 {date} {event}~을 연다고 <밝히 past>
        올해로 {3~40}회를 맞은 {city} {event}~이 {date} 막을 <올리 past>
        """,
        """
        지난해 {event}에는 {1200~58000/100 ,}명이 <찾아오 past>
        [참가비|입장료]~은 {2000~15000/1000 원}이고 [초등학생|65세 이상|장애인]~은 <내 지> <않 pres>
        행사장은 {sight} [앞|근처]<이 pres>
        행사는 [매일|날마다] 오전 {9~11}시에 시작해 오후 {5~10}시에 <끝나 pres>
        {city}~은 이번 행사에 {2~35}억 원을 <쓰 past>
        시민 {fullname}({24~79}) 씨는 "[오래 기다린 행사라|아이들과 함께 와서] [무척|참] 기쁘다"고 <말하 past>
        [먹을거리 장터|어린이 공연|사진 전시|체험 마당]도 함께 <열리 pres>
        행사 관계자는 "[안전|교통|청소]에 더욱 힘쓰겠다"고 <전하 past>
        """,
        """
        자세한 내용은 {city} {agency} 누리집에서 확인할 수 <있 pres>
        문의는 전화 {200~899}-{1000~9999 y}번으로 하면 <되 pres>
        비가 오면 행사를 [하루|일주일] 뒤로 <미루 pres>
        """,
    ),
    Scene(
        "news_facility",
        5,
        WRITTEN,
        """
        {date} {district}에 {facility}~이 문을 <열 past>
        {district}에 {facility}~을 짓는다는 계획이 {date} <발표되 past>
        {district} 주민들이 기다리던 {facility}~이 {month}에 문을 <열 pres>
        """,
        """
        이 시설을 짓는 데에는 {3~95}억 원이 <들 past>
        {facility}~은 지하 {1~3}층, 지상 {2~9}층 규모<이 pres>
        건물 안에는 [열람실|강의실|쉼터]~과 [식당|카페|놀이방]~이 <있 pres>
        이용 시간은 오전 {7~10}시부터 오후 {5~9}시까지이며 [월요일|일요일|공휴일]에는 문을 <닫 pres>
        이용료는 {1000~6000/500 원}이고 [초등학생|65세 이상|이 지역 주민]에게는 절반만 <받 pres>
        주민 {fullname}({24~79}) 씨는 "[가까운 곳에 생겨서|오래 기다린 시설이라] [무척|참] 기쁘다"고 <말하 past>
        """,
        """
        [내년|연말]까지 이런 시설을 {2~9 한} 곳 더 지을 계획<이 pres>
        자세한 내용은 시청 누리집에서 확인할 수 <있 pres>
        """,
    ),
    Scene(
        "news_incident",
        5,
        WRITTEN,
        """
        {date} {time}쯤 {district}의 한 [식당|창고|공장|상가]에서 불이 <나 past>
        {date} {time}쯤 {district}의 한 [교차로|도로|다리 위]에서 [버스|트럭|택시]~과 승용차가 <부딪히 past>
        {date} {time}쯤 {district}의 한 공사장에서 [벽이|철제 구조물이] <무너지 past>
        """,
        """
        이 사고로 [{2~9 한} 명이 <다치 past>|다친 사람은 <없 past>]
        현장에는 소방관 {12~90}명이 <출동하 past>
        사고는 {20~170}분 만에 <수습되 past>
        재산 피해는 {300~9800/100 ,}만 원쯤 되는 것으로 <알려지 past>
        근처에 사는 {fullname}({24~79}) 씨는 "[갑자기 큰 소리가 났다|너무 놀라 밖으로 뛰어나왔다]"고 <말하 past>
        이 때문에 한때 [길이 <막히 past>|주민들이 불편을 <겪 past>]
        """,
        """
        [경찰|소방 당국]~은 정확한 원인을 <조사하 고> <있 pres>
        경찰은 비슷한 사고가 자주 나는 만큼 조심해 달라고 <당부하 past>
        """,
    ),
    Scene(
        "forecast",
        8,
        "hapnida haera haeyo",
        """
        {weekday}인 내일 {city}~은 [대체로|오전부터|오후부터] 하늘이 <{sky} guess>
        {smonth} {1~28}일 {city}의 아침 기온은 {low}도, 낮 기온은 {high}도<이 guess>
        {season}~을 맞은 {city} 지방은 [당분간|이번 주 내내] 날씨가 <{air} guess>
        {weekday} {city}~과 {city2}에는 [오전|오후|밤|새벽]에 {rain}~이 <내리 guess>
        """,
        """
        {weekday2}의 아침 최저 기온은 {low}도, 낮 최고 기온은 {high}도로 <예상되 pres>
        바람은 초속 {2~14}m로 [약하게|조금 강하게|강하게] <불 guess>
        습도는 {20~90}%이고 미세 먼지는 ['좋음'|'보통'|'나쁨'] 수준<이 guess>
        [오후|밤|새벽]에는 [산간|해안|내륙] 지방에 [안개|구름]~이 <끼 guess>
        강수 확률은 {10~90/10}%, 예상 강수량은 {1~40}mm<이 guess>
        나갈 때에는 {wear}~을 <챙기 는> 것이 <좋 guess>
        """,
        """
        {weekday3}부터는 [기온이 오르|기온이 내려가|구름이 걷히|바람이 약해지]겠다고 기상청이 <전하 past>
        [운전하는|길을 나서는|산에 오르는] 사람은 [안전에|미끄러운 길에|안개에] <주의하 아야> <하 pres>
        """,
    ),
    Scene(
        "match",
        9,
        "hapnida haera haeyo",
        """
        {team}~이 {date} 열린 {sport} 경기에서 {team2}~을 {score}~으로 <이기 past>
        {team}~은 {city}에서 열린 {team2}~과의 {sport} 경기에서 {score}~으로 <이기 past>
        {weekday} 저녁 {city}에서 {team}~과 {team2}의 {sport} 경기가 <열리 past>. 결과는 {score}, {team}의 승리<이 past>
        """,
        """
        {team}의 {player} {fullname}~은 <{feat} 아> 승리를 <이끌 past>
        {half}에는 두 팀이 팽팽하게 <맞서 past>
        {team2}~은 {player} {fullname2}~이 힘을 냈지만 {team}의 기세를 막지 <못하 past>
        경기장에는 관중 {2100~32000/10 ,}명이 <모이 past>
        {team} 감독은 경기 뒤 "선수들이 끝까지 집중해 주었다"고 <말하 past>
        {fullname}~은 "[팬들의 응원 덕분에 힘이 났다|동료들이 도와준 덕분이다|다음 경기도 잘 준비하겠다]"고 <말하 past>
        """,
        """
        {team}~은 이날 승리로 {2~9}연승을 <달리 past>
        {team}~은 {weekday2}에 {team3}~과 <맞붙 pres>
        이로써 {team}~은 {1~6}위로 <올라가 past>
        {team2}~은 {2~7}연패에 <빠지 past>
        """,
    ),
    Scene(
        "animal",
        7,
        WRITTEN,
        """
        {animal}~은 {kind}에 <속하 pres>
        {animal}~은 주로 {habitat}에 사는 {kind}<이 pres>
        {habitat}에 가면 {animal}~을 만날 수 <있 pres>
        {when} {city} 근처에서 {animal} {2~30 한} 마리가 <발견되 past>
        """,
        """
        {animal}~은 [예로부터|오래전부터] 사람들에게 친숙한 {kind}<이 pres>
        {animal}~은 {food}, {food2} 같은 것을 먹고 <살 pres>
        {animal}~은 <{trait} 는> 것으로 잘 알려져 <있 pres>
        {animal}~은 주로 {awake}에 <움직이 pres>
        연구자들은 {1998~2023 y}년부터 {animal} {20~400/10 ,}마리를 <관찰하 past>
        """,
        """
        사람들은 {animal}~을 지키려고 <힘쓰 고> <있 pres>
        살 곳이 <줄어들 면서> {animal}의 수도 <줄 고> <있 pres>
        """,
    ),
    Scene(
        "plant",
        6,
        WRITTEN,
        """
        {plant}~은 {bloom}에 꽃이 피는 식물<이 pres>
        {plant}~은 {bloom}에 피고 빛깔은 주로 {color}<이 pres>
        {bloom}~이 되면 {where}에서 {plant}~이 핀 모습을 볼 수 <있 pres>
        """,
        """
        {plant}~은 {where}에서 잘 <자라 pres>
        {plant}의 꽃잎은 {color}인데 보는 사람의 마음을 <밝 게> <하 pres>
        {city}에는 {plant}~을 볼 수 있는 [수목원|공원]~이 {2~6 한} 곳 <있 pres>
        {plant}~을 심을 때에는 [물이 잘 빠지는|기름진|햇볕이 드는] 땅을 <고르 는> 것이 <좋 pres>
        {fullname} 화가는 {plant}~을 즐겨 <그리 past>
        """,
        """
        해마다 {bloom}~이 되면 많은 사람이 {plant}~을 보러 <오 pres>
        {plant}~은 오래전부터 우리나라 사람들과 <가깝 past>
        """,
    ),
    Scene(
        "town",
        7,
        WRITTEN,
        """
        {town}~은 {city}에서 자동차로 {20~90/5}분 거리에 있는 작은 마을<이 pres>
        {town}에는 {900~9800/10 ,}명쯤이 살고 <있 pres>
        {town}~은 {1400~1950 y}년에 생긴 오래된 마을<이 pres>
        """,
        """
        {town}의 넓이는 {2.1~48.9}㎢이고 [논|숲|과수원]~이 절반쯤을 <차지하 pres>
        마을 한가운데에는 {1890~1985 y}년에 지은 {building}~이 <있 pres>
        {town} 사람들은 주로 [농사를 <짓 고> <있 pres>|고기를 잡으며 <살 pres>|과수원을 <가꾸 pres>]
        이곳에서 나는 {fruit}~은 [달고|향이 좋고] <싱싱하 pres>
        해마다 {month}에는 [마을 잔치|작은 장터|음악회|씨름 대회]~이 <열리 pres>
        {town}~을 지나는 [강|냇물]~은 [동쪽|서쪽|남쪽]~으로 <흐르 pres>
        [작가|화가|가수|수학자] {fullname}~이 {town}에서 <태어나 past>
        """,
        """
        {city}에서 {town}까지는 버스가 하루에 {3~12 한} 번 <다니 pres>
        요즘에는 {town}~으로 여행을 오는 사람이 <늘 고> <있 pres>
        """,
    ),
    Scene(
        "person",
        6,
        WRITTEN,
        """
        {fullname}~은 {1880~1975 y}년 {city}에서 태어난 {artist}<이 pres>
        {artist} {fullname}~은 {city}에서 <태어나 past>
        {when} {city}에서 {artist} {fullname}의 전시회가 <열리 past>
        """,
        """
        {fullname}~은 어릴 때부터 {hobby}~을 <좋아하 past>
        {fullname}의 아버지는 [어부|목수|교사|의사|농부|우체부]<이 past>
        {fullname}~은 {15~35 일} 세에 첫 작품 {film}~을 <발표하 past>
        {fullname}의 작품은 모두 {12~240}점이 남아 <있 pres>
        {fullname}~은 {city2}~으로 옮겨 가 {2~40}년 동안 [학생들을 <가르치 past>|작업을 <이어가 past>]
        {film2}~은 {fullname}의 작품 가운데 가장 널리 알려져 <있 pres>
        """,
        """
        {city}에는 {fullname}~을 기리는 작은 박물관이 <있 pres>
        {fullname}의 작품은 지금도 많은 사람에게 <사랑받 pres>
        """,
    ),
)
